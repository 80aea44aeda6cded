//! The tables of this process, by number: a rule holds the number, the kernel the table.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ENTRIES_MAX, TABLES_MAX};

struct Named {
    name: String,
    table: Arc<[i16]>,
}

static TABLES: Mutex<Vec<Named>> = Mutex::new(Vec::new());

fn lock() -> MutexGuard<'static, Vec<Named>> {
    // Nothing panics between a change and its end, so what is there is whole.
    TABLES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of a table, from 1: the same content always has the same number, and keeps its
/// first name. Numbers live as long as the process.
///
/// # Errors
/// An empty table, one of more than [`ENTRIES_MAX`] entries, or one that would be the 17th.
pub fn intern(name: &str, table: &[i16]) -> Result<u32, String> {
    if table.is_empty() || table.len() > ENTRIES_MAX {
        return Err(format!(
            "distribution `{name}` has {} entries; 1 to {ENTRIES_MAX} are possible",
            table.len()
        ));
    }
    let mut tables = lock();
    let known = tables.iter().position(|known| *known.table == *table);
    let index = known.unwrap_or(tables.len());
    if index >= TABLES_MAX {
        return Err(format!(
            "distribution `{name}` would be the {}th of this process; {TABLES_MAX} are possible: use one of those \
             before, or start chaos anew",
            TABLES_MAX.saturating_add(1)
        ));
    }
    if known.is_none() {
        tables.push(Named { name: name.to_owned(), table: table.into() });
    }
    u32::try_from(index.saturating_add(1)).map_err(|error| error.to_string())
}

/// Every table so far; the first has number 1.
#[must_use]
pub fn tables() -> Vec<Arc<[i16]>> {
    lock().iter().map(|named| Arc::clone(&named.table)).collect()
}

/// The name under which the table of this number was first known.
#[must_use]
pub fn name(number: u32) -> Option<String> {
    let index = (number as usize).checked_sub(1)?;
    lock().get(index).map(|named| named.name.clone())
}
