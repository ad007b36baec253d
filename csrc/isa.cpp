#include "isa.h"

#include <atomic>
#include <stdexcept>

namespace fastsiren {

extern const Isa scalar;
#if defined(__x86_64__)
extern const Isa amx, amx_emulated, avx512, avx2;
static const Isa* const compiled[] = {&amx, &avx512, &avx2, &scalar, &amx_emulated};
#elif defined(__aarch64__)
extern const Isa neon;
static const Isa* const compiled[] = {&neon, &scalar};
#else
static const Isa* const compiled[] = {&scalar};
#endif

static std::atomic<const Isa*> active{nullptr};

std::vector<std::string> isa_available() {
  std::vector<std::string> names;
  for (const Isa* isa : compiled)
    if (isa->automatic && isa->supported()) names.push_back(isa->name);
  return names;
}

const Isa& isa_active() {
  if (!active.load())
    for (const Isa* isa : compiled)
      if (isa->supported()) {
        active.store(isa);
        break;
      }
  return *active.load();
}

void isa_select(const std::string& name) {
  for (const Isa* isa : compiled)
    if (name == isa->name && isa->supported()) {
      active.store(isa);
      return;
    }
  std::string list;
  for (const auto& n : isa_available()) list += (list.empty() ? "" : ", ") + n;
  throw std::invalid_argument("instruction set '" + name + "' cannot run here; available: " + list);
}

template <>
const Kernels<float>& active_kernels<float>() {
  return *isa_active().f32;
}
template <>
const Kernels<double>& active_kernels<double>() {
  return *isa_active().f64;
}

}  // namespace fastsiren
