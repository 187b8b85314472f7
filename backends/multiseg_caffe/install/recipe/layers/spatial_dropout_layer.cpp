// SpatialDropout of ENet, for the CPU: in training whole channels of an image are set to 0, with the probability
// dropout_param { dropout_ratio }, and the others are divided by 1 - dropout_ratio.
#include <vector>

#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
class SpatialDropoutLayer : public Layer<Dtype> {
 public:
  explicit SpatialDropoutLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  virtual inline const char* type() const { return "SpatialDropout"; }
  virtual inline int ExactNumBottomBlobs() const { return 1; }
  virtual inline int ExactNumTopBlobs() const { return 1; }

  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    ratio_ = this->layer_param_.dropout_param().dropout_ratio();
    CHECK(ratio_ >= 0 && ratio_ < 1) << "dropout_ratio must be at least 0 and less than 1";
  }

  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    CHECK_GE(bottom[0]->num_axes(), 2) << "SpatialDropout needs an axis of channels";
    top[0]->ReshapeLike(*bottom[0]);
    kept_.Reshape(vector<int>(1, bottom[0]->count(0, 2)));
  }

 protected:
  // Multiply each channel of each image by 0 or by 1 / (1 - ratio).
  void Scale(const Dtype* from, const int size, Dtype* to) {
    const unsigned int* kept = kept_.cpu_data();
    const Dtype factor = 1 / (1 - ratio_);
    for (int plane = 0; plane < kept_.count(); ++plane) {
      for (int i = plane * size; i < (plane + 1) * size; ++i) { to[i] = kept[plane] ? from[i] * factor : Dtype(0); }
    }
  }

  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    if (this->phase_ != TRAIN) {
      caffe_copy(bottom[0]->count(), bottom[0]->cpu_data(), top[0]->mutable_cpu_data());
      return;
    }
    caffe_rng_bernoulli(kept_.count(), Dtype(1 - ratio_), kept_.mutable_cpu_data());
    Scale(bottom[0]->cpu_data(), bottom[0]->count(2), top[0]->mutable_cpu_data());
  }

  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom) {
    if (!propagate_down[0]) { return; }
    if (this->phase_ != TRAIN) {
      caffe_copy(top[0]->count(), top[0]->cpu_diff(), bottom[0]->mutable_cpu_diff());
      return;
    }
    Scale(top[0]->cpu_diff(), bottom[0]->count(2), bottom[0]->mutable_cpu_diff());
  }

  Dtype ratio_;
  Blob<unsigned int> kept_;  // for each image and channel, whether it is kept
};

INSTANTIATE_CLASS(SpatialDropoutLayer);
REGISTER_LAYER_CLASS(SpatialDropout);

}  // namespace caffe
