//! How many requests a second one caller may send.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::caller::Payer;

/// More callers than this at once share what is left.
const PAYERS: usize = 1024;

/// A bucket for each caller; a second's worth fits in.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<Payer, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Pace {
    /// Takes one request from the bucket of this caller.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn take(&self, payer: Payer, per_second: u32, now: Instant) -> Result<(), Duration> {
        if per_second == 0 {
            return Ok(());
        }
        let rate = f64::from(per_second);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = |bucket: &Bucket| {
            (bucket.left + now.saturating_duration_since(bucket.at).as_secs_f64() * rate).min(rate)
        };
        let is_known = buckets.contains_key(&payer);
        if !is_known && buckets.len() >= PAYERS {
            buckets.retain(|_, bucket| filled(bucket) < rate);
        }
        let payer = if is_known || buckets.len() < PAYERS { payer } else { Payer::Others };
        let bucket = buckets.entry(payer).or_insert(Bucket { left: rate, at: now });
        *bucket = Bucket { left: filled(bucket), at: now };
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / rate));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_gets_a_seconds_worth_at_once_and_then_his_rate() {
        let (pace, start) = (Pace::default(), Instant::now());
        let taken = |payer, at: Instant| (0..100).take_while(|_| pace.take(payer, 10, at).is_ok()).count();
        assert_eq!(taken(Payer::User(1), start), 10);
        let wait = pace.take(Payer::User(1), 10, start).unwrap_err();
        assert!((wait.as_secs_f64() - 0.1).abs() < 0.001, "{wait:?}");
        assert_eq!(taken(Payer::User(2), start), 10, "another one");
        assert_eq!(taken(Payer::User(1), start + Duration::from_millis(500)), 5);
        assert_eq!(taken(Payer::User(1), start + Duration::from_secs(100)), 10);
        assert!(pace.take(Payer::User(1), 0, start).is_ok(), "0 is no limit");
    }

    #[test]
    fn there_is_room_for_so_many_only() {
        let (pace, start) = (Pace::default(), Instant::now());
        for user in 0..u32::try_from(2 * PAYERS).unwrap() {
            let _ = pace.take(Payer::User(user), 1000, start);
        }
        assert!(pace.0.lock().unwrap().len() <= PAYERS + 1);
    }
}
