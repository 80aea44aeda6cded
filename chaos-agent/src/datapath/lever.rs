//! Disarms every agent's tables, found by name, without asking the agents.

use aya::maps::{Array, Map, MapData, MapError, loaded_maps};
use chaos_common::abi::control;

use super::DatapathError;

/// The name under which the kernel lists the control table.
const CONTROL: &str = "CHAOS_CONTROL";

/// Writes the stop word and a generation of 0 into every control table of this machine; how many
/// had been armed.
pub fn disarm_all() -> Result<usize, DatapathError> {
    let failed = |error: &MapError| DatapathError::table(CONTROL, error);
    let mut armed = 0;
    for info in loaded_maps().filter_map(Result::ok) {
        if info.name_as_str() != Some(CONTROL) {
            continue;
        }
        // It may be gone by now, which is what we want.
        let Ok(data) = MapData::from_id(info.id()) else { continue };
        let mut table: Array<_, u64> = Array::try_from(Map::Array(data)).map_err(|error| failed(&error))?;
        if table.get(&control::GENERATION, 0).is_ok_and(|generation| generation != 0) {
            armed += 1;
        }
        table.set(control::STOPPED, 1, 0).map_err(|error| failed(&error))?;
        table.set(control::GENERATION, 0, 0).map_err(|error| failed(&error))?;
    }
    Ok(armed)
}
