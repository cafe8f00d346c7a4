//! `/metrics`: numbers of the server and its engine in the text form of Prometheus, version 0.0.4.
//!
//! Numbers of requests are counted here, those of the engine are read from it when somebody asks. Labels come from
//! closed sets: routes, statuses, names of keys.

use std::fmt;
use std::time::Duration;

use k2_engine::{Engine, PrefixStoreStats, Timings, Usage};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// All numbers of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    disconnects: Counter,
    request_seconds: Histogram,
    queue_seconds: Histogram,
    prefill_seconds: Histogram,
    time_to_first_token: Histogram,
    time_per_output_token: Histogram,
    grammars: Family<GrammarLabels, Counter>,
    grammar_seconds: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: String,
    status: u16,
    key: String,
}

/// What became of a grammar that a request wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GrammarOutcome {
    /// It had been compiled before.
    Cached,
    /// It was compiled in this time.
    Compiled(Duration),
    /// It turned out in this time that there is none.
    Refused(Duration),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GrammarLabels {
    outcome: &'static str,
}

/// Whose blocks they are.
type StateLabel = [(&'static str, &'static str); 1];

impl Metrics {
    pub(crate) fn new(engine: Engine, model_name: &str) -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_labels([("model".into(), model_name.to_owned().into())].into_iter()),
            requests: Family::default(),
            disconnects: Counter::default(),
            request_seconds: seconds(0.001, 24),
            queue_seconds: seconds(0.001, 22),
            prefill_seconds: seconds(0.001, 22),
            time_to_first_token: seconds(0.001, 22),
            time_per_output_token: seconds(0.000_1, 18),
            grammars: Family::default(),
            grammar_seconds: seconds(0.000_1, 18),
        };
        metrics.register(engine);
        metrics
    }

    fn register(&mut self, engine: Engine) {
        let Metrics { registry, requests, disconnects, grammars, .. } = self;
        registry.register(
            "k2_requests",
            "Requests that ended, by route, status and name of key",
            requests.clone(),
        );
        let help = "Requests whose client went away before the end of its answer";
        registry.register("k2_disconnects", help, disconnects.clone());
        let help = "Grammars of tools and formats that requests wanted: in the cache, compiled, or refused";
        registry.register("k2_grammars", help, grammars.clone());
        for (name, help, histogram) in [
            (
                "k2_request_seconds",
                "From the first byte of a request to the last of its answer",
                &self.request_seconds,
            ),
            ("k2_queue_seconds", "Waiting for a turn", &self.queue_seconds),
            ("k2_prefill_seconds", "Computing the prompt", &self.prefill_seconds),
            (
                "k2_time_to_first_token_seconds",
                "From submission to the first token",
                &self.time_to_first_token,
            ),
            (
                "k2_time_per_output_token_seconds",
                "Mean time of an answer's tokens after the first",
                &self.time_per_output_token,
            ),
            (
                "k2_grammar_compile_seconds",
                "Compiling a grammar that was not in the cache",
                &self.grammar_seconds,
            ),
        ] {
            registry.register(name, help, histogram.clone());
        }
        registry.register_collector(Box::new(OfEngine(engine)));
    }

    /// A request ended.
    pub(crate) fn ended(&self, endpoint: &str, status: u16, key: &str, disconnected: bool, took: Duration) {
        let labels = RequestLabels { endpoint: endpoint.to_owned(), status, key: key.to_owned() };
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.observe(took.as_secs_f64());
        if disconnected {
            self.disconnects.inc();
        }
    }

    /// The engine finished an answer.
    pub(crate) fn answered(&self, usage: Usage, timings: Timings) {
        self.queue_seconds.observe(timings.queued.as_secs_f64());
        self.prefill_seconds.observe(timings.prefill.as_secs_f64());
        if let Some(first) = timings.time_to_first_token {
            self.time_to_first_token.observe(first.as_secs_f64());
        }
        if usage.completion_tokens > 1 {
            let later = (usage.completion_tokens - 1) as f64;
            self.time_per_output_token.observe(timings.decode.as_secs_f64() / later);
        }
    }

    /// A request wanted a grammar.
    pub(crate) fn grammar(&self, outcome: GrammarOutcome) {
        let (outcome, took) = match outcome {
            GrammarOutcome::Cached => ("cached", None),
            GrammarOutcome::Compiled(took) => ("compiled", Some(took)),
            GrammarOutcome::Refused(took) => ("refused", Some(took)),
        };
        self.grammars.get_or_create(&GrammarLabels { outcome }).inc();
        if let Some(took) = took {
            self.grammar_seconds.observe(took.as_secs_f64());
        }
    }

    /// The text.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Buckets that double.
fn seconds(first: f64, count: u16) -> Histogram {
    Histogram::new(exponential_buckets(first, 2.0, count))
}

/// The engine's numbers, read when they are asked for.
#[derive(Debug)]
struct OfEngine(Engine);

impl Collector for OfEngine {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
        for (name, help, value) in [
            ("k2_requests_waiting", "Requests whose turn has not come", stats.waiting),
            ("k2_sequences_running", "Sequences computed together", stats.running),
            ("k2_sequences_paused", "Sequences that wait for room in the cache", stats.paused),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        for (name, help, value) in [
            ("k2_prompt_tokens", "Tokens of prompts whose turn has come", stats.prompt_tokens),
            ("k2_cached_prompt_tokens", "How many of them were in the cache", stats.num_cached_tokens),
            ("k2_generated_tokens", "Tokens chosen", stats.completion_tokens),
            ("k2_preemptions", "Sequences that left the cache so that others could go on", stats.preemptions),
            (
                "k2_steps_between_layers",
                "Steps of answers between two layers of a long prompt",
                stats.steps_between_layers,
            ),
            ("k2_rearranged_bytes", "Weights rearranged while nobody waited", stats.repacked_bytes),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let help = "Finding out which tokens grammars allow";
        let masks = ConstCounter::new(stats.mask_nanos as f64 / 1e9);
        let name = "k2_grammar_mask_seconds";
        masks.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        let help = "Blocks of the cache: in use, kept for later, holding nothing";
        let mut blocks = encoder.encode_descriptor("k2_kv_blocks", help, None, MetricType::Gauge)?;
        for (state, value) in
            [("used", stats.blocks_used), ("idle", stats.blocks_idle), ("free", stats.blocks_free)]
        {
            let labels: StateLabel = [("state", state)];
            ConstGauge::new(value).encode(blocks.encode_family(&labels)?)?;
        }
        stats.prefix_store.map_or(Ok(()), |store| encode_store(store, encoder))
    }
}

fn encode_store(store: PrefixStoreStats, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Blocks of the prefix store: looked for, files read, right ones, written, wrong ones removed, \
                gone for want of room, writes that failed";
    let mut blocks = encoder.encode_descriptor("k2_prefix_store_blocks", help, None, MetricType::Counter)?;
    for (event, value) in [
        ("wanted", store.wanted),
        ("read", store.read),
        ("found", store.found),
        ("written", store.written),
        ("removed", store.removed),
        ("evicted", store.evicted),
        ("failed", store.failed),
    ] {
        let labels = [("event", event)];
        ConstCounter::new(value).encode(blocks.encode_family(&labels)?)?;
    }
    for (name, help, value) in [
        ("k2_prefix_store_bytes", "Bytes of the prefix store's files", store.bytes),
        ("k2_prefix_store_budget_bytes", "Bytes that they may take", store.budget_bytes),
    ] {
        let gauge = ConstGauge::new(value);
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    Ok(())
}

/// The type of the answer to `GET /metrics`.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
