// Interp of Caffe's forks (DeepLab, PSPNet, ICNet), for the CPU: bilinear interpolation with aligned corners, after pad_beg and
// pad_end (at most 0) have cropped the input. Output pixel i is at i * (read - 1) / (size - 1) of the pixels that are read.
#include <algorithm>
#include <vector>

#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
class InterpLayer : public Layer<Dtype> {
 public:
  explicit InterpLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  virtual inline const char* type() const { return "Interp"; }
  virtual inline int ExactNumBottomBlobs() const { return 1; }
  virtual inline int ExactNumTopBlobs() const { return 1; }

  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    const InterpParameter& p = this->layer_param_.interp_param();
    CHECK_LE(p.pad_beg(), 0) << "pad_beg crops";
    CHECK_LE(p.pad_end(), 0) << "pad_end crops";
    CHECK(p.has_zoom_factor() || p.has_shrink_factor() || (p.height() > 0 && p.width() > 0))
        << "interp_param needs height and width, zoom_factor or shrink_factor";
    CHECK_GE(p.zoom_factor(), 1);
    CHECK_GE(p.shrink_factor(), 1);
  }

  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    const InterpParameter& p = this->layer_param_.interp_param();
    CHECK_EQ(bottom[0]->num_axes(), 4);
    vector<int> shape = bottom[0]->shape();
    const int sizes[2] = {p.height(), p.width()};
    for (int axis = 0; axis < 2; ++axis) {
      const int read = shape[2 + axis] + p.pad_beg() + p.pad_end();
      CHECK_GE(read, 1) << "Interp crops its whole input";
      if (p.has_zoom_factor() || p.has_shrink_factor()) {
        const int shrunk = (read - 1) / p.shrink_factor() + 1;
        shape[2 + axis] = shrunk + (shrunk - 1) * (p.zoom_factor() - 1);
      } else {
        shape[2 + axis] = sizes[axis];
      }
      sources(read, shape[2 + axis], -p.pad_beg(), bottom[0]->shape(2 + axis), &first_[axis], &next_[axis], &part_[axis]);
    }
    top[0]->Reshape(shape);
  }

 protected:
  // The two source pixels of each of `size` output pixels, and the weight of the second.
  static void sources(int read, int size, int start, int end, vector<int>* first, vector<int>* next, vector<Dtype>* part) {
    first->resize(size);
    next->resize(size);
    part->resize(size);
    for (int i = 0; i < size; ++i) {
      const double at = size > 1 ? double(i) * (read - 1) / (size - 1) : 0;
      const int low = std::min(int(at), read - 1);
      (*first)[i] = start + low;
      (*next)[i] = start + std::min(low + 1, read - 1);
      (*part)[i] = at - low;
    }
  }

  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
    const int planes = bottom[0]->count(0, 2), width = bottom[0]->shape(3), size = bottom[0]->count(2);
    const int rows = top[0]->shape(2), columns = top[0]->shape(3);
    const Dtype* x = bottom[0]->cpu_data();
    Dtype* y = top[0]->mutable_cpu_data();
    for (int plane = 0; plane < planes; ++plane, x += size) {
      for (int i = 0; i < rows; ++i) {
        const Dtype* above = x + first_[0][i] * width;
        const Dtype* below = x + next_[0][i] * width;
        const Dtype v = part_[0][i];
        for (int j = 0; j < columns; ++j) {
          const int left = first_[1][j], right = next_[1][j];
          const Dtype h = part_[1][j];
          *y++ = (1 - v) * ((1 - h) * above[left] + h * above[right]) + v * ((1 - h) * below[left] + h * below[right]);
        }
      }
    }
  }

  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom) {
    if (!propagate_down[0]) { return; }
    const int planes = bottom[0]->count(0, 2), width = bottom[0]->shape(3), size = bottom[0]->count(2);
    const int rows = top[0]->shape(2), columns = top[0]->shape(3);
    const Dtype* dy = top[0]->cpu_diff();
    Dtype* dx = bottom[0]->mutable_cpu_diff();
    caffe_set(bottom[0]->count(), Dtype(0), dx);
    for (int plane = 0; plane < planes; ++plane, dx += size) {
      for (int i = 0; i < rows; ++i) {
        Dtype* above = dx + first_[0][i] * width;
        Dtype* below = dx + next_[0][i] * width;
        const Dtype v = part_[0][i];
        for (int j = 0; j < columns; ++j) {
          const int left = first_[1][j], right = next_[1][j];
          const Dtype h = part_[1][j], g = *dy++;
          above[left] += (1 - v) * (1 - h) * g;
          above[right] += (1 - v) * h * g;
          below[left] += v * (1 - h) * g;
          below[right] += v * h * g;
        }
      }
    }
  }

  vector<int> first_[2], next_[2];  // of rows, of columns
  vector<Dtype> part_[2];
};

INSTANTIATE_CLASS(InterpLayer);
REGISTER_LAYER_CLASS(Interp);

}  // namespace caffe
