//! From what arrived to what was sent: each transmission of a connection as arrived or lost.

use std::collections::{BTreeMap, BTreeSet};

use super::capture::Arrival;

/// One connection's transmissions between its first and its last arrival that carried data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmissions {
    /// In the order of sending: whether it arrived.
    pub arrived: Vec<bool>,
    /// Arrivals that came after one that was sent later.
    pub late: u64,
    /// Transmissions that arrived more than once.
    pub twice: u64,
}

impl Transmissions {
    /// How many were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.arrived.iter().filter(|arrived| !**arrived).count() as u64
    }

    /// Lost or not, in the order of sending.
    #[must_use]
    pub fn losses(&self) -> Vec<bool> {
        self.arrived.iter().map(|arrived| !arrived).collect()
    }
}

/// The transmissions of every connection, by its source port.
#[must_use]
pub fn by_connection(arrivals: &[Arrival]) -> BTreeMap<u16, Transmissions> {
    let mut connections: BTreeMap<u16, Vec<&Arrival>> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    for arrival in arrivals {
        if arrival.fin {
            ended.insert(arrival.source_port);
        } else if !arrival.data && ended.contains(&arrival.source_port) {
            // The last acknowledgement is sent by a TIME-WAIT socket, which numbers by itself.
            continue;
        }
        connections.entry(arrival.source_port).or_default().push(arrival);
    }
    connections.into_iter().map(|(port, arrivals)| (port, reconstruct(&arrivals))).collect()
}

/// Unwraps the 16-bit identifications (each is taken as the nearest to the highest so far) and
/// marks what is missing between the lowest and the highest that carried data. Packets without
/// data are numbered too: where one arrived, nothing is missing.
fn reconstruct(arrivals: &[&Arrival]) -> Transmissions {
    let mut seen: BTreeMap<i64, u64> = BTreeMap::new();
    let mut highest: Option<i64> = None;
    let mut late = 0;
    let (mut lowest_data, mut highest_data) = (i64::MAX, i64::MIN);
    for arrival in arrivals {
        let first = match highest {
            None => i64::from(arrival.id),
            Some(highest) => {
                let distance = arrival.id.wrapping_sub(highest.rem_euclid(65536).try_into().unwrap_or(0));
                highest + i64::from(distance.cast_signed())
            }
        };
        let last = first + i64::from(arrival.segments) - 1;
        late += u64::from(highest.is_some_and(|highest| first < highest)) * u64::from(arrival.segments);
        for number in first..=last {
            *seen.entry(number).or_default() += 1;
        }
        highest = Some(highest.map_or(last, |highest| highest.max(last)));
        if arrival.data {
            lowest_data = lowest_data.min(first);
            highest_data = highest_data.max(last);
        }
    }
    let twice = seen.values().filter(|count| **count > 1).count() as u64;
    let arrived = (lowest_data..=highest_data).map(|number| seen.contains_key(&number)).collect();
    Transmissions { arrived, late, twice }
}

#[cfg(test)]
mod tests {
    use super::{Arrival, by_connection};

    fn arrivals(ids: &[u16]) -> Vec<Arrival> {
        let arrival = |id: &u16| Arrival { source_port: 1, id: *id, segments: 1, data: true, fin: false };
        ids.iter().map(arrival).collect()
    }

    #[test]
    fn packets_without_data_fill_holes_but_not_after_the_end() {
        let mut list = arrivals(&[10, 11, 12, 40000]);
        list[1].data = false;
        list[2].fin = true;
        list[3].data = false;
        let found = &by_connection(&list)[&1];
        assert_eq!((found.losses(), found.late), (vec![false; 3], 0));
    }

    #[test]
    fn holes_are_losses_across_the_wrap() {
        let found = &by_connection(&arrivals(&[65533, 65534, 0, 3, 4]))[&1];
        assert_eq!(found.losses(), [false, false, true, false, true, true, false, false]);
        assert_eq!((found.lost(), found.late, found.twice), (3, 0, 0));
    }

    #[test]
    fn late_and_double_arrivals_are_no_losses() {
        let found = &by_connection(&arrivals(&[65535, 1, 0, 2, 2]))[&1];
        assert_eq!((found.lost(), found.late, found.twice), (0, 1, 1));
    }

    #[test]
    fn an_skb_of_many_segments_counts_as_many() {
        let mut list = arrivals(&[10, 56]);
        list[0].segments = 45;
        assert_eq!(by_connection(&list)[&1].losses().iter().filter(|lost| **lost).count(), 1);
    }
}
