// Opens and closes the region that one instruction set's code is compiled in. Standard headers come before it: inside,
// their templates would be compiled for that instruction set and the linker could keep that copy for every machine.
#pragma once
#define FASTSIREN_STRING(x) #x
#if defined(__clang__)
#define FASTSIREN_TARGET(features) \
  _Pragma(FASTSIREN_STRING(clang attribute push(__attribute__((target(features))), apply_to = function)))
#define FASTSIREN_TARGET_END _Pragma("clang attribute pop")
#else
#define FASTSIREN_TARGET(features) _Pragma("GCC push_options") _Pragma(FASTSIREN_STRING(GCC target(features)))
#define FASTSIREN_TARGET_END _Pragma("GCC pop_options")
#endif
