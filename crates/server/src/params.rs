//! Which values the parameters of a request may have: this server's own rules, or those of Moonshot's platform.

use crate::body::Body;
use crate::error::ApiError;

/// A set of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Params {
    /// Everything that the sampler can do, in OpenAI's ranges.
    #[default]
    Open,
    /// As Moonshot's platform for K2: a temperature from 0 to 1, all else fixed.
    Kimi,
}

/// What the platform fixes, and to which value.
const FIXED: [(&str, f64); 4] =
    [("top_p", KIMI_TOP_P), ("presence_penalty", 0.0), ("frequency_penalty", 0.0), ("n", 1.0)];

const KIMI_TOP_P: f64 = 0.95;

impl Params {
    /// Its name on the command line.
    pub fn from_name(name: &str) -> Result<Params, String> {
        match name {
            "open" => Ok(Params::Open),
            "kimi" => Ok(Params::Kimi),
            _ => Err(format!("{name:?} is no set of rules; there are open and kimi")),
        }
    }

    /// The highest temperature.
    pub(crate) fn max_temperature(self) -> f64 {
        match self {
            Params::Open => 2.0,
            Params::Kimi => 1.0,
        }
    }

    /// `top_p` of requests that name none, where it is not the server's choice.
    pub(crate) fn top_p(self) -> Option<f32> {
        (self == Params::Kimi).then_some(KIMI_TOP_P as f32)
    }

    /// Refuses other values of what is fixed. The fields stay to be read.
    pub(crate) fn check(self, body: &Body) -> Result<(), ApiError> {
        if self == Params::Open {
            return Ok(());
        }
        for (name, fixed) in FIXED {
            if let Some(value) = body.peek::<f64>(name)?.filter(|value| *value != fixed) {
                let message = format!("`{name}` is {value}; for this model only {fixed} is allowed");
                return Err(ApiError::field(name, message));
            }
        }
        Ok(())
    }
}
