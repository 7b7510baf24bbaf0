// cp.async of one thread: copies that are issued, committed in groups, and waited for.
// Source: PTX ISA, "Data Movement and Conversion Instructions: Asynchronous copy", non-bulk.
#pragma once

#include <vector>

#include "emulator/runtime.h"

namespace tdc::emulator {

class AsyncCopies {
  public:
    // 16 bytes, of which `source_bytes` are read and the rest is zero.
    void issue(void* shared, const void* global, int source_bytes, Site site);
    void commit() { ++committed_; }
    void wait(int unfinished_groups);
    void clear();                 // before a new thread
    void check_finished() const;  // at a thread's end

  private:
    struct Copy {
        void* shared;
        unsigned char data[16];
        int group;
        const void* place;  // a return address into the kernel
        Site site;
    };
    std::vector<Copy> pending_;  // in the order of issue
    int committed_ = 0;          // groups
};

AsyncCopies& async_copies();  // of the running thread

}  // namespace tdc::emulator
