#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/scratch.h"

namespace nf {

// Memory that is kept from call to call: fresh pages cost more than the kernels that fill them.
template <class T>
class Buffer {
 public:
  // Contents undefined.
  T* get(int64_t count) {
    if (count > size_) {
      data_ = Scratch<T>(0);  // before there is more
      data_ = Scratch<T>(size_ = count + count / 16);
    }
    return data_.get();
  }
  T* zeros(int64_t count) {
    T* data = get(count);
    std::fill_n(data, count, T(0));
    return data;
  }
  T* get() const { return data_.get(); }

 private:
  Scratch<T> data_{0};
  int64_t size_ = 0;
};

}  // namespace nf
