#include "device_problem.h"

#include "rounding.h"

namespace tdc::test {
namespace {

// Where the elements of a map [images, pixels, channels] lie in memory.
class Layout {
  public:
    Layout(Family family, Arithmetic arithmetic, int pixels, int channels)
        : channel_first_(family == Family::kChannelFirst),
          pixels_(static_cast<std::size_t>(pixels)),
          channels_(static_cast<std::size_t>(channels)),
          pitch_(arithmetic == Arithmetic::kF16 ? static_cast<std::size_t>(channel_pitch(channels))
                                                : channels_) {}

    std::size_t size(std::size_t count) const { return count / channels_ * pitch_; }

    // Of an element's number, channel last.
    std::size_t place(std::size_t i) const {
        const std::size_t pixel = i / channels_, channel = i % channels_;
        if (!channel_first_) return pixel * pitch_ + channel;
        return (pixel / pixels_ * channels_ + channel) * pixels_ + pixel % pixels_;
    }

  private:
    bool channel_first_;
    std::size_t pixels_, channels_, pitch_;
};

Layout x_layout(const Problem& p, Family family) {
    return {family, p.arithmetic, p.layer.h * p.layer.w, p.layer.c};
}
Layout y_layout(const Problem& p, Family family) {
    return {family, p.arithmetic, p.layer.h_out() * p.layer.w_out(), p.layer.m};
}

std::size_t element_size(const Problem& p) { return p.arithmetic == Arithmetic::kF16 ? 2 : 4; }

// Padding lanes hold NaN, which a kernel that trusts them spreads.
DeviceArray upload(const Problem& p, const std::vector<double>& values, const Layout& layout) {
    if (p.arithmetic == Arithmetic::kF16) {
        std::vector<uint16_t> bits(layout.size(values.size()), 0x7fff);
        for (std::size_t i = 0; i < values.size(); ++i) bits[layout.place(i)] = f16_bits(values[i]);
        return DeviceArray(bits);
    }
    std::vector<float> floats(values.size());
    for (std::size_t i = 0; i < values.size(); ++i)
        floats[layout.place(i)] = static_cast<float>(values[i]);
    return DeviceArray(floats);
}

DeviceArray upload(const Problem& p, const std::vector<double>& values) {
    return upload(p, values, {Family::kFused, Arithmetic::kF32, 1, 1});
}

std::vector<double> download(const Problem& p, const DeviceArray& array) {
    std::vector<double> values;
    if (p.arithmetic == Arithmetic::kF16)
        for (const uint16_t bits : array.values<uint16_t>()) values.push_back(f16_value(bits));
    else
        for (const float value : array.values<float>()) values.push_back(value);
    return values;
}

}  // namespace

DeviceProblem::DeviceProblem(const Problem& p, Family family)
    : y(y_layout(p, family).size(p.residual.size()) * element_size(p)),
      problem_(p),
      family_(family),
      x_(upload(p, p.x, x_layout(p, family))),
      residual_(upload(p, p.residual, y_layout(p, family))),
      first_(upload(p, p.first)),
      first_bias_(upload(p, p.first_bias)),
      core_(upload(p, p.core)),
      core_bias_(upload(p, p.core_bias)),
      last_(upload(p, p.last)),
      bias_(upload(p, p.bias)) {}

TuckerConvParams DeviceProblem::params() const {
    TuckerConvParams p = shapes_of(problem_.layer);
    p.x = x_.data();
    p.residual = problem_.layer.residual ? residual_.data() : nullptr;
    p.y = y.data();
    p.first = first_.data();
    p.first_bias = first_bias_.data();
    p.core = core_.data();
    p.core_bias = core_bias_.data();
    p.last = last_.data();
    p.bias = bias_.data();
    return p;
}

Output DeviceProblem::output() const {
    const std::vector<double> stored = download(problem_, y);
    const Layout layout = y_layout(problem_, family_);
    Output output{std::vector<double>(problem_.residual.size()), true};
    std::vector<bool> padding(stored.size(), true);
    for (std::size_t i = 0; i < output.values.size(); ++i) {
        output.values[i] = stored[layout.place(i)];
        padding[layout.place(i)] = false;
    }
    for (std::size_t i = 0; i < stored.size(); ++i)
        output.zero_padding &= !padding[i] || stored[i] == 0;
    return output;
}

}  // namespace tdc::test
