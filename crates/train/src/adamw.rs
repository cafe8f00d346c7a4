//! AdamW (arXiv 1711.05101) as in Moonlight's example: `eps` is added to the uncorrected `sqrt(v)`.

use serde::{Deserialize, Serialize};

use crate::vectors::vectorized;

/// AdamW's settings besides learning rate and weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// How much of the first moment stays.
    pub beta1: f32,
    /// How much of the second moment stays.
    pub beta2: f32,
    /// Keeps the division finite.
    pub eps: f32,
}

impl Default for AdamW {
    fn default() -> AdamW {
        AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8 }
    }
}

/// The two moments of a tensor.
pub struct Moments<'a> {
    /// Of the gradient.
    pub first: &'a mut [f32],
    /// Of its square.
    pub second: &'a mut [f32],
}

impl AdamW {
    /// Step number `t` (the first is 1):
    /// `p = p (1 - lr wd) - lr sqrt(1 - β2^t) / (1 - β1^t) m / (sqrt(v) + eps)`.
    pub fn step(
        &self,
        weights: &mut [f32],
        gradient: &[f32],
        moments: Moments<'_>,
        t: u64,
        lr: f32,
        weight_decay: f32,
    ) {
        let AdamW { beta1, beta2, eps } = *self;
        let power = |beta: f32| 1.0 - f64::from(beta).powi(t.min(i32::MAX as u64) as i32);
        let step = (f64::from(lr) * power(beta2).sqrt() / power(beta1)) as f32;
        let keep = 1.0 - lr * weight_decay;
        let Moments { first, second } = moments;
        vectorized(
            #[inline(always)]
            || {
                let moments = first.iter_mut().zip(second.iter_mut());
                for ((w, g), (m, v)) in weights.iter_mut().zip(gradient).zip(moments) {
                    *m += (1.0 - beta1) * (g - *m);
                    *v += (1.0 - beta2) * (g * g - *v);
                    *w = *w * keep - step * *m / (v.sqrt() + eps);
                }
            },
        );
    }
}
