// BN of Caffe's forks, for the CPU. Its fields decide which one:
// - scale_filler, shift_filler, bn_mode (SegNet, ENet): blobs scale and shift. LEARN (default) normalises by the statistics of
//   the batch in every phase; INFERENCE computes scale * x + shift.
// - slope_filler, bias_filler, momentum, eps, frozen (PSPNet, ICNet): blobs slope, bias, mean, variance. TRAIN normalises by the
//   statistics of the batch and updates mean and variance, average = momentum * average + (1 - momentum) * batch, unless
//   frozen; TEST and frozen normalise by mean and variance.
// A scale (slope) without a filler starts at 1.
#include <cmath>
#include <string>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"

namespace caffe {

template <typename Dtype>
class BNLayer : public Layer<Dtype> {
 public:
  explicit BNLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  virtual inline const char* type() const { return "BN"; }
  virtual inline int ExactNumBottomBlobs() const { return 1; }
  virtual inline int ExactNumTopBlobs() const { return 1; }

  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    const BNParameter& p = this->layer_param_.bn_param();
    const bool two = p.has_scale_filler() || p.has_shift_filler() || p.has_bn_mode();
    const bool four = p.has_slope_filler() || p.has_bias_filler() || p.has_momentum() || p.has_eps() || p.has_frozen();
    CHECK(!(two && four)) << "bn_param has fields of two different layers called BN";
    stored_ = four || this->layer_param_.param_size() > 2;
    const int count = stored_ ? 4 : 2;
    CHECK_GE(bottom[0]->num_axes(), 2) << "BN needs an axis of channels";
    if (this->blobs_.empty()) {
      vector<int> shape(4, 1);
      shape[1] = bottom[0]->shape(1);
      FillerParameter one;
      one.set_type("constant");
      one.set_value(1);
      const bool has_scale = stored_ ? p.has_slope_filler() : p.has_scale_filler();
      const FillerParameter scale = stored_ ? p.slope_filler() : p.scale_filler();
      this->blobs_.resize(count);
      for (int i = 0; i < count; ++i) { this->blobs_[i].reset(new Blob<Dtype>(shape)); }
      shared_ptr<Filler<Dtype> >(GetFiller<Dtype>(has_scale ? scale : one))->Fill(this->blobs_[0].get());
      shared_ptr<Filler<Dtype> >(GetFiller<Dtype>(stored_ ? p.bias_filler() : p.shift_filler()))->Fill(this->blobs_[1].get());
      for (int i = 2; i < count; ++i) { caffe_set(shape[1], Dtype(0), this->blobs_[i]->mutable_cpu_data()); }
    }
    CHECK_EQ(this->blobs_.size(), count);
    CHECK_LE(this->layer_param_.param_size(), count) << "BN has " << count << " blobs";
    while (this->layer_param_.param_size() < count) { this->layer_param_.add_param(); }
    for (int i = 2; i < count; ++i) {  // statistics, which no solver updates
      this->layer_param_.mutable_param(i)->set_lr_mult(0);
      this->layer_param_.mutable_param(i)->set_decay_mult(0);
    }
    this->param_propagate_down_.resize(count, true);
  }

  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    CHECK_EQ(bottom[0]->shape(1), this->blobs_[0]->count());
    top[0]->ReshapeLike(*bottom[0]);
    normal_.ReshapeLike(*bottom[0]);
    root_.Reshape(vector<int>(1, bottom[0]->shape(1)));
  }

 protected:
  // Whether this pass normalises by the statistics of the batch.
  bool of_batch() const {
    const BNParameter& p = this->layer_param_.bn_param();
    return stored_ ? this->phase_ == TRAIN && !p.frozen() : p.bn_mode() == BNParameter_BNMode_LEARN;
  }

  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    const BNParameter& p = this->layer_param_.bn_param();
    const int images = bottom[0]->shape(0), channels = bottom[0]->shape(1), size = bottom[0]->count(2);
    const bool batch = of_batch();
    const Dtype* x = bottom[0]->cpu_data();
    Dtype* normal = normal_.mutable_cpu_data();
    Dtype* y = top[0]->mutable_cpu_data();
    for (int c = 0; c < channels; ++c) {
      double mean = 0, variance = 0;
      if (batch) {
        for (int n = 0; n < images; ++n) {
          const Dtype* from = x + (n * channels + c) * size;
          for (int i = 0; i < size; ++i) { mean += from[i]; }
        }
        mean /= images * size;
        for (int n = 0; n < images; ++n) {
          const Dtype* from = x + (n * channels + c) * size;
          for (int i = 0; i < size; ++i) { variance += (from[i] - mean) * (from[i] - mean); }
        }
        variance /= images * size;
        if (stored_) {
          Dtype* means = this->blobs_[2]->mutable_cpu_data();
          Dtype* variances = this->blobs_[3]->mutable_cpu_data();
          means[c] = p.momentum() * means[c] + (1 - p.momentum()) * mean;
          variances[c] = p.momentum() * variances[c] + (1 - p.momentum()) * variance;
        }
      } else if (stored_) {
        mean = this->blobs_[2]->cpu_data()[c];
        variance = this->blobs_[3]->cpu_data()[c];
      }
      const bool plain = !batch && !stored_;  // INFERENCE
      const Dtype root = plain ? 1 : 1 / std::sqrt(variance + (stored_ ? p.eps() : 1e-9));
      const Dtype centre = mean, scale = this->blobs_[0]->cpu_data()[c], shift = this->blobs_[1]->cpu_data()[c];
      root_.mutable_cpu_data()[c] = root;
      for (int n = 0; n < images; ++n) {
        const int at = (n * channels + c) * size;
        for (int i = at; i < at + size; ++i) {
          normal[i] = (x[i] - centre) * root;
          y[i] = normal[i] * scale + shift;
        }
      }
    }
  }

  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom) {
    const int images = bottom[0]->shape(0), channels = bottom[0]->shape(1), size = bottom[0]->count(2);
    const bool batch = of_batch();
    const Dtype* normal = normal_.cpu_data();
    const Dtype* dy = top[0]->cpu_diff();
    Dtype* dx = propagate_down[0] ? bottom[0]->mutable_cpu_diff() : NULL;
    for (int c = 0; c < channels; ++c) {
      double sum = 0, product = 0;
      for (int n = 0; n < images; ++n) {
        const int at = (n * channels + c) * size;
        for (int i = at; i < at + size; ++i) {
          sum += dy[i];
          product += double(dy[i]) * normal[i];
        }
      }
      if (this->param_propagate_down_[0]) { this->blobs_[0]->mutable_cpu_diff()[c] += product; }
      if (this->param_propagate_down_[1]) { this->blobs_[1]->mutable_cpu_diff()[c] += sum; }
      if (!propagate_down[0]) { continue; }
      const Dtype factor = this->blobs_[0]->cpu_data()[c] * root_.cpu_data()[c];
      const Dtype mean = batch ? sum / (images * size) : 0, along = batch ? product / (images * size) : 0;
      for (int n = 0; n < images; ++n) {
        const int at = (n * channels + c) * size;
        for (int i = at; i < at + size; ++i) { dx[i] = factor * (dy[i] - mean - normal[i] * along); }
      }
    }
  }

  bool stored_;
  Blob<Dtype> normal_;  // the normalised input; the input itself may be overwritten
  Blob<Dtype> root_;    // 1 / standard deviation, per channel
};

INSTANTIATE_CLASS(BNLayer);
REGISTER_LAYER_CLASS(BN);

}  // namespace caffe
