// Upsample of SegNet and ENet, for the CPU: zeros, and the values of the first bottom at the places that the second, the mask of
// a MAX Pooling with two tops, gives: the index in the plane of a channel, row by row. The size of the plane is the input's times
// scale (2), or scale_h and scale_w, one row or column less with pad_out_h or pad_out_w; or upsample_h and upsample_w.
#include <vector>

#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
class UpsampleLayer : public Layer<Dtype> {
 public:
  explicit UpsampleLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  virtual inline const char* type() const { return "Upsample"; }
  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int ExactNumTopBlobs() const { return 1; }
  virtual inline bool AllowForceBackward(const int bottom_index) const { return bottom_index == 0; }

  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    const UpsampleParameter& p = this->layer_param_.upsample_param();
    CHECK_EQ(bottom[0]->num_axes(), 4);
    CHECK(bottom[0]->shape() == bottom[1]->shape()) << "values and mask differ in shape";
    vector<int> shape = bottom[0]->shape();
    shape[2] = shape[2] * (p.scale_h() ? p.scale_h() : p.scale()) - int(p.pad_out_h());
    shape[3] = shape[3] * (p.scale_w() ? p.scale_w() : p.scale()) - int(p.pad_out_w());
    if (p.upsample_h()) { shape[2] = p.upsample_h(); }
    if (p.upsample_w()) { shape[3] = p.upsample_w(); }
    top[0]->Reshape(shape);
  }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    const int planes = bottom[0]->count(0, 2), size = bottom[0]->count(2), places = top[0]->count(2);
    const Dtype* x = bottom[0]->cpu_data();
    const Dtype* mask = bottom[1]->cpu_data();
    Dtype* y = top[0]->mutable_cpu_data();
    caffe_set(top[0]->count(), Dtype(0), y);
    for (int plane = 0; plane < planes; ++plane, x += size, mask += size, y += places) {
      for (int i = 0; i < size; ++i) {
        const int place = int(mask[i]);
        CHECK(place >= 0 && place < places) << "index " << place << " in the mask of layer " << this->layer_param_.name()
            << " is outside of its output of " << top[0]->shape(2) << "x" << top[0]->shape(3)
            << "; set upsample_h and upsample_w to the size of the pooling's input";
        y[place] = x[i];
      }
    }
  }

  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom) {
    if (propagate_down[1]) {  // indices have no gradient
      caffe_set(bottom[1]->count(), Dtype(0), bottom[1]->mutable_cpu_diff());
    }
    if (!propagate_down[0]) { return; }
    const int planes = bottom[0]->count(0, 2), size = bottom[0]->count(2), places = top[0]->count(2);
    const Dtype* mask = bottom[1]->cpu_data();
    const Dtype* dy = top[0]->cpu_diff();
    Dtype* dx = bottom[0]->mutable_cpu_diff();
    for (int plane = 0; plane < planes; ++plane, mask += size, dx += size, dy += places) {
      for (int i = 0; i < size; ++i) { dx[i] = dy[int(mask[i])]; }
    }
  }
};

INSTANTIATE_CLASS(UpsampleLayer);
REGISTER_LAYER_CLASS(Upsample);

}  // namespace caffe
