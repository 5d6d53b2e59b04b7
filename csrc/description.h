// Problems as Python describes them to the operators: one line of numbers (nequip_fast/ops/description.py).
#pragma once

#include <charconv>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>

namespace nf {

// Numbers separated by blanks; independent of the locale.
class Description {
 public:
  Description(const char* name, const std::string& text) : name_(name), at_(text.data()), end_(at_ + text.size()) {}

  bool done() {
    while (at_ != end_ && *at_ == ' ') ++at_;
    return at_ == end_;
  }

  // The next numbers; throws std::runtime_error where there is none.
  template <class... Numbers>
  void read(Numbers&... to) {
    (read_one(to), ...);
  }

 private:
  template <class Number>
  void read_one(Number& to) {
    if (done()) fail("ends too early");
    const auto [stop, error] = std::from_chars(at_, end_, to);
    if (error != std::errc{}) fail("has something that is no number");
    at_ = stop;
  }
  [[noreturn]] void fail(const char* what) const {
    throw std::runtime_error(std::string(name_) + ": the description of the problem " + what);
  }

  const char *name_, *at_, *end_;
};

// parse(Description) of a text; parsed once, then kept. Safe from any thread.
template <class Problem, class Parse>
const Problem& problem_of(const char* name, const std::string& text, const Parse& parse) {
  static std::mutex mutex;
  static std::unordered_map<std::string, Problem> known;
  const std::lock_guard lock(mutex);
  const auto found = known.find(text);
  return found != known.end() ? found->second : known.emplace(text, parse(Description(name, text))).first->second;
}

}  // namespace nf
