// The loops that every pass runs on one thread: over blocks of points forward, over segments backward.
// A tile loads its points, evaluates them, or remembers its forward pass, makes the cotangents and goes backward.

template <class V, template <class> class Tile, class Job>
void forward_pass(const Job& job, Schedule& schedule, void* workspace) {
  Arena arena{static_cast<char*>(workspace), 0};
  Tile<V> tile(job, arena, false);
  tile.load_constants();
  const int64_t points = tile.G * PT<V>;
  for (int64_t block = claim(schedule); block >= 0; block = claim(schedule)) {
    for (int64_t n = block * BLOCK_POINTS; n < (block + 1) * BLOCK_POINTS && n < job.N; n += points) {
      const Extent e{n, job.N - n < points ? job.N - n : points, job.N};
      tile.load(e);
      tile.evaluate(e);
      poll(schedule);
    }
  }
}

template <class V, template <class> class Tile, class Job>
void backward_pass(const Job& job, Schedule& schedule, void* workspace) {
  Arena arena{static_cast<char*>(workspace), 0};
  Tile<V> tile(job, arena, true);
  tile.load_constants();
  const int64_t points = tile.G * PT<V>;
  const bool sums = job.parameters || job.loss.kind != LossKind::none;
  const bool adjoint = job.parameters || job.loss.kind == LossKind::none;
  const int64_t size = segment_points(job.N);
  for (int64_t segment = claim(schedule); segment >= 0; segment = claim(schedule)) {
    if (sums) tile.gradient.begin(schedule, job.parameters);
    for (int64_t n = segment * size; n < (segment + 1) * size && n < job.N; n += points) {
      const Extent e{n, job.N - n < points ? job.N - n : points, job.N};
      tile.load(e);
      tile.remember();
      tile.cotangents(e);
      if (adjoint) tile.backward(e);
      poll(schedule);
    }
    if (sums) tile.gradient.end(schedule, segment, job.parameters);
  }
}

template <class V, template <class> class Tile, class Job, bool BACKWARD>
size_t pass_bytes(const Job& job) {
  Arena arena{nullptr, 0};
  Tile<V> tile(job, arena, BACKWARD);
  return arena.used;
}
