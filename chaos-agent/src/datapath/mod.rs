//! The compiled object in the kernel: load, attach, maps. The only place that knows aya.
