//! What takes long and needs no rule, done ahead: the tables, and the programs that the kernel has verified.

use std::sync::Arc;

use aya::{Ebpf, maps::Array};
use chaos_common::abi::control;

use super::{
    DatapathError, Maps, Object, Sizes, Spare,
    instance::{DUE, EGRESS, INGRESS, NORMALISER, load_together},
    tables::CORE,
};

/// Tables and verified programs of an agent that has no rule yet. Nothing is attached, and nothing is mapped into
/// our memory.
pub struct Loaded {
    object: Arc<Object>,
    ebpf: Ebpf,
    with_log: bool,
}

impl Loaded {
    /// `tag` is this agent's marker, 1 to 15; `log_level` 0 (off) to 5 (trace).
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn new(tag: u32, log_level: u8, sizes: Sizes) -> Result<Self, DatapathError> {
        let object = Arc::new(Object::new(tag, log_level)?.with_sizes(sizes));
        let mut ebpf = object.instance(0)?;
        // All that this instance will ever need: once its tables are taken out it can load nothing more.
        let [bounce, back] = NORMALISER;
        load_together(&mut ebpf, &[CORE, EGRESS, INGRESS, bounce, back, DUE])?;
        Ok(Self { object, ebpf, with_log: log_level > 0 })
    }

    /// `chaos stop --all` came by meanwhile: what bears its word can never be armed.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let table = self.ebpf.map("CHAOS_CONTROL").and_then(|map| Array::<_, u64>::try_from(map).ok());
        table.is_none_or(|table| table.get(&control::STOPPED, 0).unwrap_or(1) != 0)
    }

    /// The tables, and the instance for the first namespace.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open(mut self) -> Result<(Arc<Object>, Maps, Spare), DatapathError> {
        let maps = Maps::take(&mut self.ebpf, self.with_log)?;
        Ok((self.object, maps, Spare::of(self.ebpf)))
    }
}
