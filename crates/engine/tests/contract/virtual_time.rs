//! Time that passes when everybody waits: hours of probes and grace periods in a second.
//!
//! Tests that use it run on tokio's paused clock (`start_paused`), and the engine's clock is that one. While a search
//! runs on its own threads the runtime looks idle to tokio, and time would leap from timer to timer: [`at_once`] holds it.
#![allow(unreachable_pub, reason = "shared by the modules of this test program")]

use std::{sync::Arc, time::Duration};

use saker_engine::{Clock, SystemClock};
use tokio::time::Instant;

use crate::common::Cluster;

/// The paused clock as the engine's.
#[derive(Debug)]
pub struct VirtualClock {
    begin: Instant,
    wall_ms: u64,
}

impl VirtualClock {
    pub fn new() -> Self {
        Self {
            begin: Instant::now(),
            wall_ms: SystemClock::new().wall_ms(),
        }
    }
}

impl Clock for VirtualClock {
    fn wall_ms(&self) -> u64 {
        self.wall_ms + self.monotonic_ms()
    }
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap()
    }
}

/// A cluster whose engine lives on the paused clock.
pub fn cluster() -> (Cluster, Arc<VirtualClock>) {
    let mut cluster = Cluster::new();
    let clock = Arc::new(VirtualClock::new());
    cluster.config.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    (cluster, clock)
}

/// Does something while no time passes. Not for what waits for a timer: that would wait for ever.
pub async fn at_once<T>(work: impl Future<Output = T>) -> T {
    // Time stands still while a blocking task runs.
    let (done, until_done) = std::sync::mpsc::channel::<()>();
    let held = tokio::task::spawn_blocking(move || until_done.recv());
    let outcome = work.await;
    drop(done);
    let _disconnected = held.await.unwrap();
    outcome
}

/// Lets time pass.
pub async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Waits for something that other threads do, which real time is for. Virtual time passes too, by 5 ms each look.
pub async fn patiently<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..20_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        std::thread::sleep(Duration::from_micros(500));
    }
    panic!("in vain: {what}");
}
