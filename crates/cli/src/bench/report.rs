//! Medians and their spread, beside the machine's limits: a table for people, one object for programs.

use std::fmt::Write;

use k2_kernels::isa::isa;
use k2_kernels::limits::Limits;
use k2_model::KimiK2;
use serde_json::{Value, json};

use super::case::{Case, Phase};
use super::work::Work;

/// Tokens per second of each repetition.
pub(super) struct Measured {
    pub(super) case: Case,
    pub(super) work: Work,
    pub(super) ours: Vec<f64>,
    /// The peer's, if there is one; it has no batches.
    pub(super) peers: Vec<f64>,
}

/// Everything measured.
pub(super) struct Report {
    model: String,
    threads: usize,
    limits: Limits,
    pub(super) results: Vec<Measured>,
}

impl Report {
    pub(super) fn new(model: String, loaded: &KimiK2, limits: Limits) -> Report {
        Report { model, threads: loaded.pool.threads(), limits, results: Vec::new() }
    }

    /// What stands above the rows.
    pub(super) fn head(&self) -> String {
        let (l, giga) = (&self.limits, |rate: f64| rate / 1e9);
        let int8 =
            l.int8_operations.map_or_else(String::new, |rate| format!(", int8 {:.0} GOP/s", giga(rate)));
        let mut text = format!("{}: {} threads, {}\n", self.model, self.threads, isa().name());
        let _ = writeln!(
            text,
            "this machine now: read {:.1} GB/s, {:.1} in huge pages; f32 {:.0} GOP/s{int8}\n",
            giga(l.read),
            giga(l.read_huge_pages),
            giga(l.f32_operations)
        );
        let _ = writeln!(
            text,
            "{:24} {:>9} {:>17} {:>9} {:>7} {:>8} {:>7} {:>7} {:>8} {:>9} {:>6}",
            "",
            "tokens/s",
            "from - to",
            "MB/token",
            "GB/s",
            "of read",
            "GOP/s",
            "of f32",
            "of int8",
            "peer",
            "ratio"
        );
        text
    }

    /// One result as a row.
    pub(super) fn row(&self, index: usize) -> String {
        let r = &self.results[index];
        let (rates, ours) = (self.rates(r), median(&r.ours));
        let (low, high) = spread(&r.ours);
        let percent =
            |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.0} %", share * 100.0));
        let mut row = format!(
            "{:24} {ours:9.2} {:>17} {:9.1} {:7.1} {:>8} {:7.1} {:>7} {:>8}",
            r.case.to_string(),
            format!("{low:.2} - {high:.2}"),
            r.work.bytes / 1e6,
            rates.bytes / 1e9,
            percent(Some(rates.bytes / self.limits.best_read())),
            rates.operations / 1e9,
            percent(Some(rates.operations / self.limits.f32_operations)),
            percent(self.limits.int8_operations.map(|limit| rates.operations / limit)),
        );
        if !r.peers.is_empty() {
            let peer = median(&r.peers);
            let _ = write!(row, " {peer:9.2} {:6.2}", ours / peer);
        }
        row
    }

    pub(super) fn json(&self) -> Value {
        let l = &self.limits;
        json!({
            "model": self.model,
            "threads": self.threads,
            "isa": isa().name(),
            "limits": {
                "read_bytes_per_second": l.read,
                "read_bytes_per_second_huge_pages": l.read_huge_pages,
                "f32_operations_per_second": l.f32_operations,
                "int8_operations_per_second": l.int8_operations,
            },
            "results": self.results.iter().map(|result| self.result(result)).collect::<Vec<_>>(),
        })
    }

    fn result(&self, r: &Measured) -> Value {
        let (rates, l) = (self.rates(r), &self.limits);
        let (low, high) = spread(&r.ours);
        let peer = (!r.peers.is_empty()).then(|| median(&r.peers));
        json!({
            "phase": match r.case.phase { Phase::Prefill => "prefill", Phase::Decode => "decode" },
            "tokens": r.case.len,
            "depth": r.case.depth,
            "batch": r.case.batch,
            "tokens_per_second": median(&r.ours),
            "tokens_per_second_from": low,
            "tokens_per_second_to": high,
            "samples": r.ours,
            "bytes_per_token": r.work.bytes,
            "bytes_per_second": rates.bytes,
            "share_of_read": rates.bytes / l.best_read(),
            "operations_per_token": r.work.operations,
            "operations_per_second": rates.operations,
            "share_of_f32": rates.operations / l.f32_operations,
            "share_of_int8": l.int8_operations.map(|limit| rates.operations / limit),
            "peer_tokens_per_second": peer,
            "peer_samples": r.peers,
            "ratio": peer.map(|peer| median(&r.ours) / peer),
        })
    }

    /// Per second.
    fn rates(&self, r: &Measured) -> Work {
        let speed = median(&r.ours);
        Work { bytes: r.work.bytes * speed, operations: r.work.operations * speed }
    }
}

/// The middle one, or the mean of the two in the middle; of none, 0.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len => (sorted[(len - 1) / 2] + sorted[len / 2]) / 2.0,
    }
}

fn spread(samples: &[f64]) -> (f64, f64) {
    let fold = |from, pick: fn(f64, f64) -> f64| samples.iter().copied().fold(from, pick);
    (fold(f64::INFINITY, f64::min), fold(0.0, f64::max))
}
