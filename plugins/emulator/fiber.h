// A function with a stack of its own, entered and left by the scheduler's choice.
#pragma once

#include <memory>

namespace tdc::emulator {

class Fiber {
  public:
    explicit Fiber(void (*entry)());  // `entry` must not return
    ~Fiber();
    void resume();   // called by the scheduler: runs the fiber until it suspends
    void suspend();  // called by the fiber: returns to the scheduler until the next resume

  private:
    struct Context;
    static void begin();
    static void change(Context& from, Context& to);
    static Context scheduler_;
    static Context* resumed_;
    std::unique_ptr<Context> context_;
};

}  // namespace tdc::emulator
