// Plans a problem as launches of the compiled groups.
#include "cuda/conv/conv.h"

#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cuda/conv/group.h"
#include "cuda/launch.h"

namespace nf::cuda {
namespace {

template <class T>
struct Launch {
  ConvKernels<T> kernels;
  GroupArgs<T> args;
};

template <class T>
struct Plan {
  std::vector<Launch<T>> launches;
  Widths widths;
  bool writes_w;  // every column of w belongs to a path
};

template <class T>
const std::vector<ConvKernels<T>>& groups() {
  static const std::vector<ConvKernels<T>> all = []<int... i>(std::integer_sequence<int, i...>) {
    return std::vector<ConvKernels<T>>{conv_kernels<T, i>()...};
  }(std::make_integer_sequence<int, Groups::size>{});
  return all;
}

// Paths from one irrep of x that one launch can compute: no two of the same degrees, and one irrep of y of each degree.
struct Bundle {
  std::vector<const ConvPath*> paths;

  const ConvPath& first() const { return *paths.front(); }
  bool takes(const ConvPath& path) const {
    if (path.x != first().x || path.l1 != first().l1 || path.mul != first().mul) return false;
    for (const ConvPath* other : paths)
      if (other->l2 == path.l2 && (other->l3 == path.l3 || other->y != path.y)) return false;
    return true;
  }
};

std::vector<Bundle> bundles(const ConvProblem& problem) {
  std::vector<Bundle> all;
  for (const ConvPath& path : problem.paths) {
    if (path.mul == 0) continue;
    auto bundle = all.begin();
    while (bundle != all.end() && !bundle->takes(path)) ++bundle;
    if (bundle == all.end())
      all.push_back({{&path}});
    else
      bundle->paths.push_back(&path);
  }
  return all;
}

// The group of the fewest paths that holds these; null where there is none.
template <class T>
const ConvKernels<T>* smallest(const Bundle& bundle) {
  const ConvKernels<T>* found = nullptr;
  for (const ConvKernels<T>& group : groups<T>()) {
    bool holds = group.l1 == bundle.first().l1 && (!found || group.paths < found->paths);
    for (const ConvPath* path : bundle.paths) holds = holds && group.index(path->l2, path->l3) >= 0;
    if (holds) found = &group;
  }
  return found;
}

std::string not_compiled(const Bundle& bundle) {
  std::string paths;
  for (const ConvPath* path : bundle.paths)
    paths += (paths.empty() ? "" : ", ") + std::to_string(path->l2) + "→" + std::to_string(path->l3);
  return "no kernel is compiled for the paths of l = " + std::to_string(bundle.first().l1) + " (" + paths + ")";
}

template <class T>
Launch<T> launch_of(const Bundle& bundle) {
  const ConvKernels<T>* const group = smallest<T>(bundle);
  if (!group) throw std::runtime_error("conv: " + not_compiled(bundle));
  Launch<T> launch{*group, {bundle.first().mul, bundle.first().x, {}, {}}};
  for (int& column : launch.args.y) column = -1;
  for (PathArgs<T>& path : launch.args.path) path = {0, 0, -1, T(0)};
  for (const ConvPath* path : bundle.paths) {
    launch.args.y[path->l2] = path->y;
    launch.args.path[group->index(path->l2, path->l3)] = {path->w, path->w_stride, path->out, T(path->coefficient)};
  }
  return launch;
}

// Whether irreps, apart or the same, are all different and fill a row.
bool fill_a_row(const std::vector<std::pair<int, int>>& begins_and_sizes, int dim) {
  std::set<int> begins;
  int64_t filled = 0;
  for (const auto& [begin, size] : begins_and_sizes) filled += begins.insert(begin).second ? size : int64_t(dim) + 1;
  return filled == dim;
}

template <class T>
Plan<T> plan(const ConvProblem& problem) {
  Plan<T> made{{}, {problem.dim_x, problem.dim_y, problem.dim_w, problem.dim_out, false, false}, problem.covers_w};
  std::vector<std::pair<int, int>> x, out;
  for (const Bundle& bundle : bundles(problem)) {
    made.launches.push_back(launch_of<T>(bundle));
    x.emplace_back(bundle.first().x, bundle.first().mul * (2 * bundle.first().l1 + 1));
    for (const ConvPath* path : bundle.paths) out.emplace_back(path->out, path->mul * (2 * path->l3 + 1));
  }
  made.widths.add_x = !fill_a_row(x, problem.dim_x);
  made.widths.add_out = !fill_a_row(out, problem.dim_out);
  return made;
}

// Problems live as long as the process, so that their addresses are names.
template <class T>
const Plan<T>& plan_of(const ConvProblem& problem) {
  static std::mutex mutex;
  static std::map<const ConvProblem*, Plan<T>> known;
  const std::lock_guard lock(mutex);
  const auto found = known.find(&problem);
  return found != known.end() ? found->second : known.emplace(&problem, plan<T>(problem)).first->second;
}

// Errors of a row of launches: the first, or none.
class Errors {
 public:
  template <class Call>
  void then(const Call& call) {
    if (first_ == 0) first_ = call();
  }
  int first() const { return first_; }

 private:
  int first_ = 0;
};

}  // namespace

std::string conv_why_not(const ConvProblem& problem) {
  for (const Bundle& bundle : bundles(problem))
    if (!smallest<float>(bundle)) return not_compiled(bundle);
  return "";
}

template <class T>
int conv(const ConvGraph& graph, const ConvProblem& problem, const Inputs<T>& in, T* out, void* stream) {
  const Plan<T>& plan = plan_of<T>(problem);
  Errors errors;
  if (plan.widths.add_out) errors.then([&] { return zero(out, graph.by_receiver.nodes * problem.dim_out, stream); });
  if (graph.by_receiver.nodes == 0) return errors.first();
  for (const Launch<T>& launch : plan.launches)
    errors.then([&] { return launch.kernels.gather(graph.by_receiver, launch.args, plan.widths, in, out, stream); });
  return errors.first();
}

template <class T>
int conv_gradient(const ConvGraph& graph, const ConvProblem& problem, const Inputs<T>& in, const Rows<T>& to,
                  void* stream) {
  const Plan<T>& plan = plan_of<T>(problem);
  const int64_t nodes = graph.by_sender.nodes;
  Errors errors;
  if (to.x && plan.widths.add_x) errors.then([&] { return zero(to.x, nodes * problem.dim_x, stream); });
  if (to.y) errors.then([&] { return zero(to.y, graph.edges * problem.dim_y, stream); });
  if (to.w && in.formed.table)
    errors.then([&] { return zero(to.w, graph.edges * kTableRows, stream); });
  else if (to.w && !plan.writes_w)
    errors.then([&] { return zero(to.w, graph.edges * problem.dim_w, stream); });
  if (nodes == 0) return errors.first();
  for (const Launch<T>& launch : plan.launches)
    errors.then([&] { return launch.kernels.gradient(graph.by_sender, launch.args, plan.widths, in, to, stream); });
  return errors.first();
}

#define NF_CONV(T)                                                                             \
  template int conv<T>(const ConvGraph&, const ConvProblem&, const Inputs<T>&, T*, void*);     \
  template int conv_gradient<T>(const ConvGraph&, const ConvProblem&, const Inputs<T>&, const Rows<T>&, void*);
NF_CONV(float)
NF_CONV(double)
#undef NF_CONV

}  // namespace nf::cuda
