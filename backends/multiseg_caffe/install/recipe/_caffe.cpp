// The C++ part of pycaffe, with pybind11 in place of Boost.Python, which distributions build for their own Python only.
// It replaces python/caffe/_caffe.cpp of BVLC Caffe, whose interface it keeps: the same names, arguments and types.
// It registers the layer type Python as well, so that no other source file of Caffe includes Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl_bind.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "caffe/caffe.hpp"
#include "caffe/layers/memory_data_layer.hpp"
#include "caffe/sgd_solvers.hpp"

PYBIND11_DECLARE_HOLDER_TYPE(T, boost::shared_ptr<T>)

namespace caffe {

namespace py = pybind11;

typedef float Dtype;  // pycaffe computes in single precision
typedef std::vector<Blob<Dtype>*> RawBlobVec;
typedef std::vector<boost::shared_ptr<Blob<Dtype> > > BlobVec;
typedef std::vector<boost::shared_ptr<Layer<Dtype> > > LayerVec;
typedef std::vector<boost::shared_ptr<Net<Dtype> > > NetVec;

// A blob as Python sees it. A wrapper of its own for each access, because one blob is reached both through shared
// pointers and, in Python layers, through plain ones, and a wrapper of the second kind does not keep the blob alive.
struct BlobRef {
  boost::shared_ptr<Blob<Dtype> > blob;
};

struct KeepBlob {
  void operator()(Blob<Dtype>*) const {}
};

BlobRef to_python(const boost::shared_ptr<Blob<Dtype> >& blob) { return BlobRef{blob}; }
BlobRef to_python(Blob<Dtype>* blob) { return BlobRef{boost::shared_ptr<Blob<Dtype> >(blob, KeepBlob())}; }
template <typename T>
boost::shared_ptr<T> to_python(const boost::shared_ptr<T>& value) { return value; }

void from_python(const BlobRef& value, boost::shared_ptr<Blob<Dtype> >* element) { *element = value.blob; }
void from_python(const BlobRef& value, Blob<Dtype>** element) { *element = value.blob.get(); }
template <typename T>
void from_python(const boost::shared_ptr<T>& value, boost::shared_ptr<T>* element) { *element = value; }

// Caffe ends the process if a file cannot be read; this raises RuntimeError before.
void check_file(const std::string& name) {
  if (!std::ifstream(name.c_str()).good()) throw std::runtime_error("Could not open file " + name);
}

// ---------------------------------------------------------------------------------------------------- Python layers

class PythonLayer : public Layer<Dtype> {
 public:
  explicit PythonLayer(const LayerParameter& param) : Layer<Dtype>(param) {}

  void LayerSetUp(const RawBlobVec& bottom, const RawBlobVec& top) override {
    if (this->phase_ == TRAIN && Caffe::solver_count() > 1 && !Caffe::multiprocess()) {
      LOG(FATAL) << "PythonLayer does not support CLI Multi-GPU, use train.py";
    }
    py::object layer = self();
    layer.attr("param_str") = py::str(this->layer_param_.python_param().param_str());
    layer.attr("phase") = static_cast<int>(this->phase_);
    layer.attr("setup")(bottom, top);
  }
  void Reshape(const RawBlobVec& bottom, const RawBlobVec& top) override { self().attr("reshape")(bottom, top); }
  const char* type() const override { return "Python"; }

 protected:
  void Forward_cpu(const RawBlobVec& bottom, const RawBlobVec& top) override { self().attr("forward")(bottom, top); }
  void Backward_cpu(const RawBlobVec& top, const std::vector<bool>& propagate_down, const RawBlobVec& bottom) override {
    self().attr("backward")(top, propagate_down, bottom);
  }

 private:
  // the Python object that was constructed together with this layer; the layer's owner keeps it alive
  py::object self() { return py::cast(static_cast<Layer<Dtype>*>(this), py::return_value_policy::reference); }
};

// Keeps a Python layer's object alive as long as Caffe keeps the layer.
struct KeepObject {
  py::object object;
  void operator()(void*) {
    if (Py_IsInitialized()) {
      py::gil_scoped_acquire lock;
      object = py::object();
    } else {
      object.release();
    }
  }
};

template <typename T>
boost::shared_ptr<Layer<T> > GetPythonLayer(const LayerParameter& param);

template <>
boost::shared_ptr<Layer<double> > GetPythonLayer<double>(const LayerParameter&) {
  throw std::runtime_error("layers written in Python compute in single precision");
}

template <>
boost::shared_ptr<Layer<Dtype> > GetPythonLayer<Dtype>(const LayerParameter& param) {
  const PythonParameter& python = param.python_param();
  py::object layer = py::module_::import(python.module().c_str()).attr(python.layer().c_str())(param);
  if (!py::isinstance<Layer<Dtype> >(layer)) {
    throw std::runtime_error(python.module() + "." + python.layer() + " is no subclass of caffe.Layer");
  }
  return boost::shared_ptr<Layer<Dtype> >(layer.cast<Layer<Dtype>*>(), KeepObject{layer});
}

REGISTER_LAYER_CREATOR(Python, GetPythonLayer);

// The base class's methods, for layers that do not override them; a PythonLayer's own would call these again.
void Layer_setup(Layer<Dtype>* layer, const RawBlobVec& bottom, const RawBlobVec& top) {
  if (!dynamic_cast<PythonLayer*>(layer)) layer->LayerSetUp(bottom, top);
}
void Layer_reshape(Layer<Dtype>* layer, const RawBlobVec& bottom, const RawBlobVec& top) {
  if (!dynamic_cast<PythonLayer*>(layer)) layer->Reshape(bottom, top);
}

// ------------------------------------------------------------------------------------------------------------- blobs

std::vector<int> shape_of(const py::args& sizes) {
  std::vector<int> shape;
  try {
    for (py::handle size : sizes) shape.push_back(size.cast<int>());
  } catch (const py::cast_error&) {
    throw py::type_error("the sizes of a blob are whole numbers");
  }
  return shape;
}

// A float32 array over a blob's own memory, which stays valid as long as the array lives, unless the blob is reshaped.
py::array over_memory(py::object self, Dtype* memory) {
  const std::vector<int>& shape = self.cast<BlobRef&>().blob->shape();
  return py::array_t<Dtype>(std::vector<py::ssize_t>(shape.begin(), shape.end()), memory, self);
}

// A vector of Caffe's objects, with the methods of a Python list that Boost.Python's indexing suite has.
template <typename Vec>
py::class_<Vec> bind_objects(py::module_ m, const char* name) {
  typedef typename Vec::value_type Element;
  typedef decltype(to_python(std::declval<const Element&>())) Value;
  auto position = [](const Vec& v, py::ssize_t i) {
    const py::ssize_t count = static_cast<py::ssize_t>(v.size());
    if (i < -count || i >= count) throw py::index_error("Index out of range");
    return static_cast<size_t>(i < 0 ? i + count : i);
  };
  auto append = [](Vec& v, const Value& value) {
    Element element;
    from_python(value, &element);
    v.push_back(element);
  };
  return py::class_<Vec>(m, name)
      .def(py::init<>())
      .def("__len__", [](const Vec& v) { return v.size(); })
      .def("__getitem__", [=](const Vec& v, py::ssize_t i) { return to_python(v[position(v, i)]); })
      .def("__getitem__", [](const Vec& v, const py::slice& slice) {
        size_t start, stop, step, count;
        if (!slice.compute(v.size(), &start, &stop, &step, &count)) throw py::error_already_set();
        Vec part;
        for (size_t i = 0; i < count; ++i, start += step) part.push_back(v[start]);
        return part;
      })
      .def("__setitem__", [=](Vec& v, py::ssize_t i, const Value& value) { from_python(value, &v[position(v, i)]); })
      .def("__delitem__", [=](Vec& v, py::ssize_t i) { v.erase(v.begin() + position(v, i)); })
      .def("__iter__", [](const Vec& v) {
        py::list items;
        for (const Element& element : v) items.append(py::cast(to_python(element)));
        return py::iter(items);
      })
      .def("__contains__", [](const Vec& v, const Value& value) {
        Element element;
        from_python(value, &element);
        return std::find(v.begin(), v.end(), element) != v.end();
      })
      .def("append", append)
      .def("extend", [=](Vec& v, const py::iterable& values) {
        for (py::handle value : values) append(v, value.cast<Value>());
      });
}

// -------------------------------------------------------------------------------------------------------------- nets

boost::shared_ptr<Net<Dtype> > Net_Init(const std::string& network_file, int phase, int level, const py::object& stages,
                                        const py::object& weights) {
  check_file(network_file);
  std::vector<std::string> names;
  if (!stages.is_none()) {
    for (py::handle stage : stages) names.push_back(stage.cast<std::string>());
  }
  boost::shared_ptr<Net<Dtype> > net(new Net<Dtype>(network_file, static_cast<Phase>(phase), level, &names));
  if (!weights.is_none()) {
    const std::string file = weights.cast<std::string>();
    check_file(file);
    net->CopyTrainedLayersFrom(file);
  }
  return net;
}

boost::shared_ptr<Net<Dtype> > Net_Init_Load(const std::string& network_file, const std::string& weights, int phase) {
  LOG(WARNING) << "DEPRECATION WARNING - deprecated use of Python interface";
  LOG(WARNING) << "Use this instead (with the named \"weights\" parameter):";
  LOG(WARNING) << "Net('" << network_file << "', " << phase << ", weights='" << weights << "')";
  check_file(network_file);
  check_file(weights);
  boost::shared_ptr<Net<Dtype> > net(new Net<Dtype>(network_file, static_cast<Phase>(phase)));
  net->CopyTrainedLayersFrom(weights);
  return net;
}

void Net_Save(const Net<Dtype>& net, const std::string& filename) {
  NetParameter param;
  net.ToProto(&param, false);
  WriteProtoToBinaryFile(param, filename.c_str());
}

void check_input(const py::array& array, const std::string& name, int channels, int height, int width) {
  if (!(array.flags() & py::array::c_style)) throw std::runtime_error(name + " must be C contiguous");
  if (array.ndim() != 4) throw std::runtime_error(name + " must be 4-d");
  if (!py::isinstance<py::array_t<Dtype> >(array)) throw std::runtime_error(name + " must be float32");
  if (array.shape(1) != channels) throw std::runtime_error(name + " has wrong number of channels");
  if (array.shape(2) != height) throw std::runtime_error(name + " has wrong height");
  if (array.shape(3) != width) throw std::runtime_error(name + " has wrong width");
}

void Net_SetInputArrays(Net<Dtype>* net, py::array data, py::array labels) {
  MemoryDataLayer<Dtype>* layer = dynamic_cast<MemoryDataLayer<Dtype>*>(net->layers().at(0).get());
  if (!layer) {
    throw std::runtime_error("set_input_arrays may only be called if the first layer is a MemoryDataLayer");
  }
  check_input(data, "data array", layer->channels(), layer->height(), layer->width());
  check_input(labels, "labels array", 1, 1, 1);
  if (data.shape(0) != labels.shape(0)) throw std::runtime_error("data and labels must have the same first dimension");
  if (data.shape(0) % layer->batch_size() != 0) {
    throw std::runtime_error("first dimensions of input arrays must be a multiple of batch size");
  }
  layer->Reset(static_cast<Dtype*>(data.mutable_data()), static_cast<Dtype*>(labels.mutable_data()),
               static_cast<int>(data.shape(0)));
}

class NetCallback : public Net<Dtype>::Callback {
 public:
  explicit NetCallback(const py::object& function) : function_(function) {}

 protected:
  void run(int layer) override { function_(layer); }

 private:
  py::object function_;
};

// Caffe keeps callbacks as plain pointers and never deletes them: neither does pycaffe.
template <void (Net<Dtype>::*add)(Net<Dtype>::Callback*)>
void Net_callback(Net<Dtype>* net, const py::object& function) { (net->*add)(new NetCallback(function)); }

// ----------------------------------------------------------------------------------------------------------- solvers

class SolverCallback : public Solver<Dtype>::Callback {
 public:
  SolverCallback(const py::object& on_start, const py::object& on_gradients_ready)
      : on_start_(on_start), on_gradients_ready_(on_gradients_ready) {}

 protected:
  void on_start() override { on_start_(); }
  void on_gradients_ready() override { on_gradients_ready_(); }

 private:
  py::object on_start_, on_gradients_ready_;
};

Solver<Dtype>* GetSolverFromFile(const std::string& filename) {
  check_file(filename);
  SolverParameter param;
  ReadSolverParamsFromTextFileOrDie(filename, &param);
  return SolverRegistry<Dtype>::CreateSolver(param);
}

template <typename Type, typename Base>
py::class_<Type, Base, boost::shared_ptr<Type> > bind_solver(py::module_ m, const char* name) {
  return py::class_<Type, Base, boost::shared_ptr<Type> >(m, name, py::dynamic_attr())
      .def(py::init([](const std::string& filename) {
        check_file(filename);
        return boost::shared_ptr<Type>(new Type(filename));
      }));
}

// This build has no NCCL; scripts may still name the class and pass it on.
struct NCCL {
  NCCL(const boost::shared_ptr<Solver<Dtype> >&, const std::string&) {}
};

void init_log() {
  ::google::InitGoogleLogging("");
  ::google::InstallFailureSignalHandler();
}

PYBIND11_MODULE(_caffe, m) {
  // names with an underscore are replaced by pycaffe.py
  m.attr("__version__") = AS_STRING(CAFFE_VERSION);

  m.def("init_log", &init_log);
  m.def("init_log", [](int level) {
    FLAGS_minloglevel = level;
    init_log();
  });
  m.def("init_log", [](int level, bool to_stderr) {
    FLAGS_minloglevel = level;
    FLAGS_logtostderr = to_stderr;
    init_log();
  });
  m.def("log", [](const std::string& text) { LOG(INFO) << text; });
  m.def("has_nccl", [] { return false; });
  m.def("set_mode_cpu", [] { Caffe::set_mode(Caffe::CPU); });
  m.def("set_mode_gpu", [] { Caffe::set_mode(Caffe::GPU); });
  m.def("set_random_seed", [](unsigned int seed) { Caffe::set_random_seed(seed); });
  m.def("set_device", &Caffe::SetDevice);
  m.def("solver_count", &Caffe::solver_count);
  m.def("set_solver_count", &Caffe::set_solver_count);
  m.def("solver_rank", &Caffe::solver_rank);
  m.def("set_solver_rank", &Caffe::set_solver_rank);
  m.def("set_multiprocess", &Caffe::set_multiprocess);
  m.def("layer_type_list", &LayerRegistry<Dtype>::LayerTypeList);

  py::bind_vector<std::vector<std::string> >(m, "StringVec");
  py::bind_vector<std::vector<int> >(m, "IntVec");
  py::bind_vector<std::vector<Dtype> >(m, "DtypeVec");
  py::bind_vector<std::vector<bool> >(m, "BoolVec");

  py::class_<BlobRef>(m, "Blob", py::dynamic_attr())
      .def_property_readonly("shape", [](const BlobRef& b) { return b.blob->shape(); }, py::return_value_policy::move)
      .def_property_readonly("num", [](const BlobRef& b) { return b.blob->num(); })
      .def_property_readonly("channels", [](const BlobRef& b) { return b.blob->channels(); })
      .def_property_readonly("height", [](const BlobRef& b) { return b.blob->height(); })
      .def_property_readonly("width", [](const BlobRef& b) { return b.blob->width(); })
      .def_property_readonly("count", [](const BlobRef& b) { return b.blob->count(); })
      .def("reshape", [](BlobRef& b, const py::args& sizes) { b.blob->Reshape(shape_of(sizes)); })
      .def_property_readonly("data", [](py::object self) {
        return over_memory(self, self.cast<BlobRef&>().blob->mutable_cpu_data());
      })
      .def_property_readonly("diff", [](py::object self) {
        return over_memory(self, self.cast<BlobRef&>().blob->mutable_cpu_diff());
      });
  bind_objects<RawBlobVec>(m, "RawBlobVec");
  bind_objects<BlobVec>(m, "BlobVec").def("add_blob", [](BlobVec& v, const py::args& sizes) {
    v.push_back(boost::shared_ptr<Blob<Dtype> >(new Blob<Dtype>(shape_of(sizes))));
  });

  py::class_<LayerParameter>(m, "LayerParameter");
  py::class_<Layer<Dtype>, PythonLayer, boost::shared_ptr<Layer<Dtype> > >(m, "Layer", py::dynamic_attr())
      .def(py::init_alias<const LayerParameter&>())
      .def_property_readonly("blobs", [](Layer<Dtype>& layer) -> BlobVec& { return layer.blobs(); })
      .def("setup", &Layer_setup)
      .def("reshape", &Layer_reshape)
      .def_property_readonly("type", &Layer<Dtype>::type);
  bind_objects<LayerVec>(m, "LayerVec");

  typedef Net<Dtype> Network;
  py::class_<Network, boost::shared_ptr<Network> >(m, "Net", py::dynamic_attr())
      .def(py::init(&Net_Init), py::arg("network_file"), py::arg("phase"), py::arg("level") = 0,
           py::arg("stages") = py::none(), py::arg("weights") = py::none())
      .def(py::init(&Net_Init_Load))
      .def("_forward", &Network::ForwardFromTo)
      .def("_backward", &Network::BackwardFromTo)
      .def("reshape", &Network::Reshape)
      .def("clear_param_diffs", &Network::ClearParamDiffs)
      .def("copy_from", [](Network& net, const std::string& filename) { net.CopyTrainedLayersFrom(filename); })
      .def("share_with", &Network::ShareTrainedLayersWith)
      .def_property_readonly("_blob_loss_weights", &Network::blob_loss_weights)
      .def("_bottom_ids", &Network::bottom_ids, py::return_value_policy::copy)
      .def("_top_ids", &Network::top_ids, py::return_value_policy::copy)
      .def_property_readonly("_blobs", &Network::blobs)
      .def_property_readonly("layers", &Network::layers)
      .def_property_readonly("_blob_names", &Network::blob_names, py::return_value_policy::copy)
      .def_property_readonly("_layer_names", &Network::layer_names, py::return_value_policy::copy)
      .def_property_readonly("_inputs", &Network::input_blob_indices, py::return_value_policy::copy)
      .def_property_readonly("_outputs", &Network::output_blob_indices, py::return_value_policy::copy)
      .def("_set_input_arrays", &Net_SetInputArrays, py::keep_alive<1, 2>(), py::keep_alive<1, 3>())
      .def("save", &Net_Save)
      .def("save_hdf5", &Network::ToHDF5, py::arg("filename"), py::arg("write_diff") = false)
      .def("load_hdf5", [](Network& net, const std::string& filename) { net.CopyTrainedLayersFromHDF5(filename); })
      .def("before_forward", &Net_callback<&Network::add_before_forward>)
      .def("after_forward", &Net_callback<&Network::add_after_forward>)
      .def("before_backward", &Net_callback<&Network::add_before_backward>)
      .def("after_backward", [](Network&, NCCL&) {})
      .def("after_backward", &Net_callback<&Network::add_after_backward>);
  bind_objects<NetVec>(m, "NetVec");

  py::class_<SolverParameter>(m, "SolverParameter", py::dynamic_attr())
      .def_property_readonly("max_iter", &SolverParameter::max_iter)
      .def_property_readonly("display", &SolverParameter::display)
      .def_property_readonly("layer_wise_reduce", &SolverParameter::layer_wise_reduce)
      .def_property("base_lr", &SolverParameter::base_lr, &SolverParameter::set_base_lr);

  typedef Solver<Dtype> Solving;
  py::class_<Solving, boost::shared_ptr<Solving> >(m, "Solver", py::dynamic_attr())
      .def_property_readonly("net", [](Solving& solver) { return solver.net(); })
      .def_property_readonly("test_nets", &Solving::test_nets)
      .def_property_readonly("iter", &Solving::iter)
      .def("add_callback", [](Solving& solver, const py::object& on_start, const py::object& on_gradients_ready) {
        solver.add_callback(new SolverCallback(on_start, on_gradients_ready));
      })
      .def("add_callback", [](Solving&, NCCL&) {})
      .def("solve", [](Solving& solver, const char* resume_file) { solver.Solve(resume_file); },
           py::arg("resume_file") = static_cast<const char*>(nullptr))
      .def("step", &Solving::Step)
      .def("restore", &Solving::Restore)
      .def("snapshot", &Solving::Snapshot)
      .def("share_weights", [](Solving& solver, Network& net) { net.ShareTrainedLayersWith(solver.net().get()); })
      .def("apply_update", &Solving::ApplyUpdate)
      .def_property_readonly("param", &Solving::param);

  bind_solver<SGDSolver<Dtype>, Solving>(m, "SGDSolver").def_property_readonly("lr", &SGDSolver<Dtype>::GetLearningRate);
  bind_solver<NesterovSolver<Dtype>, SGDSolver<Dtype> >(m, "NesterovSolver");
  bind_solver<AdaGradSolver<Dtype>, SGDSolver<Dtype> >(m, "AdaGradSolver");
  bind_solver<RMSPropSolver<Dtype>, SGDSolver<Dtype> >(m, "RMSPropSolver");
  bind_solver<AdaDeltaSolver<Dtype>, SGDSolver<Dtype> >(m, "AdaDeltaSolver");
  bind_solver<AdamSolver<Dtype>, SGDSolver<Dtype> >(m, "AdamSolver");
  m.def("get_solver", &GetSolverFromFile, py::return_value_policy::take_ownership);

  py::class_<NCCL>(m, "NCCL").def(py::init<const boost::shared_ptr<Solving>&, const std::string&>());

  py::class_<Timer, boost::shared_ptr<Timer> >(m, "Timer", py::dynamic_attr())
      .def(py::init<>())
      .def("start", &Timer::Start)
      .def("stop", &Timer::Stop)
      .def_property_readonly("ms", &Timer::MilliSeconds);
}

}  // namespace caffe
