// A layer with random operands, and what its output may be: the operator of tdc/tucker_conv.h in
// float64.
#pragma once

#include <vector>

#include "tdc/tactics.h"

namespace tdc::test {

struct Case {
    const char* name;
    int n, h, w, c, m, r_in, r_out, kernel_h, kernel_w, stride_h, stride_w;
    int top, left, bottom, right, dilation_h, dilation_w;
    bool residual;
    float first_slope, core_slope, slope;
    bool every_schedule = false;  // else it runs under two
    bool drawn = false;           // one of many: it runs one tactic

    int h_out() const { return out(h, top + bottom, kernel_h, stride_h, dilation_h); }
    int w_out() const { return out(w, left + right, kernel_w, stride_w, dilation_w); }

  private:
    static int out(int in, int padding, int kernel, int stride, int dilation) {
        return (in + padding - dilation * (kernel - 1) - 1) / stride + 1;
    }
};

// The layers that every tactic's tests are drawn from: chosen ones, and small ones of every kind
// that are drawn at random from a fixed seed.
const std::vector<Case>& cases();

// The parameters of a layer, without pointers.
TuckerConvParams shapes_of(const Case& layer);

// What a kernel may give for each element of Y, both ends included.
struct Bounds {
    std::vector<double> low, high;
};

struct Problem {
    // Draws operands that the arithmetic's storage type (fp16 or fp32) holds exactly, of sizes that
    // keep T1, T2 and Y near 1.
    Problem(const Case& layer, Arithmetic arithmetic);

    // Y of a kernel that computes as tdc::Arithmetic says. Operands and intermediates are rounded
    // as the arithmetic rounds them; sums are exact, and what fp32 sums may differ by follows from
    // it, element by element:
    //
    //   - Adding k terms in any order makes k errors of at most u times a partial sum each. Taken
    //     as random they add up to λ u √k times the largest partial sum, with λ = 4 (N. Higham and
    //     T. Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput.
    //     2019); as a random walk, that one is at most the sum itself and λ √Σterm².
    //   - Errors of T1 (T2) times their weights reach the next sum in the same way: at most
    //     λ √Σ(weight · error)², and never more than Σ|weight · error|.
    //   - An interval goes through a rounding by its ends, since that is monotonic: far from a tie,
    //     an error of the sum leaves no trace. So it goes through an activation, but for one with a
    //     slope below zero, which is least at zero.
    //
    // Operands are drawn from a fixed seed, so that what is probable is so once and for all.
    // problem_test.cpp shows that these bounds find small faults.
    Bounds bounds() const;

    Case layer;
    Arithmetic arithmetic;
    // Channel last, weights as in TuckerConvParams.
    std::vector<double> x, residual, first, first_bias, core, core_bias, last, bias;
};

}  // namespace tdc::test
