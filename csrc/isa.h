// The instruction sets of this binary, best first, and the one in use.
#pragma once
#include <string>
#include <vector>

#include "engine.h"

namespace fastsiren {

std::vector<std::string> isa_available();  // what this machine runs, best first
const Isa& isa_active();
void isa_select(const std::string& name);  // throws std::invalid_argument on a name that is unknown or cannot run here

template <class T>
const Kernels<T>& active_kernels();

}  // namespace fastsiren
