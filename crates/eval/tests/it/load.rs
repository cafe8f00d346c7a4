//! The load generator against a vendor.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k2_eval::load::{Between, Distribution, Plan, Report, Route, Sample, Until, run};
use k2_eval::{Endpoint, Options};
use serde_json::{Value, json};

use crate::vendor::{self, Fault, Reply, flawless};

fn plan() -> Plan {
    Plan {
        route: Route::Completions,
        clients: 3,
        rate: None,
        until: Until::Requests(8),
        prompt_tokens: Between { least: 40, most: 40 },
        answer_tokens: Between { least: 4, most: 9 },
        ignore_eos: true,
        seed: 1,
    }
}

fn loaded(plan: &Plan, fault: Fault) -> Result<Report, String> {
    let endpoint = Endpoint::new(&vendor::start(fault), &Options::default()).unwrap();
    run(&endpoint, vendor::MODEL, plan, Some(vendor::tokenizer()), |_| ()).map_err(|error| error.to_string())
}

#[test]
fn a_panic_is_not_lost() {
    let endpoint = Endpoint::new(&vendor::start(flawless), &Options::default()).unwrap();
    let loaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let seen = |sample: &Sample| assert!(sample.error.is_some());
        run(&endpoint, vendor::MODEL, &plan(), Some(vendor::tokenizer()), seen).is_ok()
    }));
    assert!(loaded.is_err(), "{loaded:?}");
}

#[test]
fn all_requests_are_counted() {
    let check = |plan: Plan, prompt: u64| {
        let report = loaded(&plan, flawless).unwrap();
        assert_eq!((report.answered, report.errors.len(), report.ignore_eos), (8, 0, true));
        assert_eq!((report.prompt_tokens, report.completion_tokens), (8 * prompt, 8 * 12));
        let end = report.end_to_end.unwrap();
        assert!(report.time_to_first_token.unwrap().p50 <= end.p99 && end.max <= report.seconds * 1e3);
        assert!(report.inter_token_latency.is_some() && report.time_per_output_token.is_some());
    };
    check(plan(), 40);
    check(Plan { rate: Some(1000.0), clients: 8, ..plan() }, 40);
    // The turn format around the user's 40 tokens.
    let chat = json!([{ "role": "user", "content": "x".repeat(40) }]);
    check(Plan { route: Route::Chat, ..plan() }, vendor::renderer().prompt_tokens(&chat, None).unwrap());
}

#[test]
fn a_duration_ends_a_load() {
    let report =
        loaded(&Plan { until: Until::Elapsed(Duration::from_millis(50)), ..plan() }, flawless).unwrap();
    assert!(report.answered > 0 && report.errors.is_empty());
}

#[test]
fn a_seed_decides_prompts_and_lengths() {
    use std::sync::Mutex;
    static ASKED: Mutex<Vec<(String, u64)>> = Mutex::new(Vec::new());
    fn note(body: &Value, _: &mut Reply) {
        let prompt = body["prompt"].as_str().unwrap().to_owned();
        ASKED.lock().unwrap().push((prompt, body["max_tokens"].as_u64().unwrap()));
    }
    let asked = |seed| {
        loaded(&Plan { seed, ..plan() }, note).unwrap();
        let mut asked = std::mem::take(&mut *ASKED.lock().unwrap());
        asked.sort();
        asked
    };
    let (first, again, other) = (asked(1), asked(1), asked(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
    let mut prompts: Vec<_> = first.iter().map(|(prompt, _)| prompt).collect();
    prompts.dedup();
    assert_eq!(prompts.len(), 9, "eight and the first of one token, all different");
    assert!(first.iter().all(|(_, tokens)| *tokens == 1 || (4..=9).contains(tokens)));
}

#[test]
fn what_fails_is_counted_and_said() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    fn every_fourth(_: &Value, reply: &mut Reply) {
        if ASKED.fetch_add(1, Ordering::SeqCst) % 4 == 3 {
            (reply.status, reply.streams, reply.whole) = (503, false, json!({ "error": "full" }));
        }
    }
    let report = loaded(&plan(), every_fourth).unwrap();
    assert_eq!((report.answered, report.errors.values().sum::<usize>()), (6, 2));
    assert!(report.errors.keys().all(|error| error.contains("status 503") && error.contains("full")));
    fn knows_no_ignore_eos(body: &Value, reply: &mut Reply) {
        if !body["ignore_eos"].is_null() {
            (reply.status, reply.streams) = (400, false);
        }
    }
    let report = loaded(&plan(), knows_no_ignore_eos).unwrap();
    assert_eq!((report.answered, report.ignore_eos), (8, false));
    fn refuses(_: &Value, reply: &mut Reply) {
        (reply.status, reply.streams, reply.whole) = (400, false, json!({ "error": "no" }));
    }
    assert!(loaded(&plan(), refuses).unwrap_err().contains("refuses the first request: status 400"));
}

#[test]
fn plans_that_ask_for_nothing_are_refused() {
    let check = |plan: Plan, expected: &str| {
        let error = loaded(&plan, flawless).unwrap_err();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    };
    check(Plan { clients: 0, ..plan() }, "the number of clients is 0, expected 1 to 10000");
    check(Plan { rate: Some(0.0), ..plan() }, "the rate is 0, expected a number above 0");
    check(Plan { rate: Some(f64::NAN), ..plan() }, "the rate is NaN");
    check(Plan { until: Until::Requests(0), ..plan() }, "the number of requests is 0");
    check(
        Plan { answer_tokens: Between { least: 9, most: 4 }, ..plan() },
        "the answer's length is 9 to 4 tokens",
    );
    check(
        Plan { prompt_tokens: Between { least: 0, most: 4 }, ..plan() },
        "the prompt's length is 0 to 4 tokens",
    );
}

#[test]
fn percentiles_are_measured_values() {
    let of = |times: &[u64]| Distribution::of(times.iter().map(|time| Duration::from_millis(*time)));
    let check = |times: &[u64], expected: [f64; 5]| {
        let Distribution { mean, p50, p95, p99, max } = of(times).unwrap();
        assert_eq!([mean, p50, p95, p99, max], expected, "{times:?}");
    };
    check(&[7], [7.0; 5]);
    check(&[4, 2], [3.0, 2.0, 4.0, 4.0, 4.0]);
    check(&(1..=100).rev().collect::<Vec<_>>(), [50.5, 50.0, 95.0, 99.0, 100.0]);
    assert_eq!(of(&[]), None);
}
