//! Multi-head latent attention's gradients.

use super::attention::{self, InputGradients, Outputs};
use super::rmsnorm::{self, Rows};
use crate::forward::Pass;
use crate::forward::attention::{Heads, Inputs};
use crate::forward::mla::{MlaActivations, Places};
use crate::gemm::{Into, View, ViewMut, linear_input_gradient, linear_weight_gradient};
use crate::params::{MlaSlots, QuerySlots};
use crate::vectors::sized;
use crate::workspace::Scratch;

/// Writes `scratch.d_normed`, the gradient for the normalised residual `x`, given the output's gradient `dy`.
pub(crate) fn backward(
    pass: &Pass<'_>,
    slots: &MlaSlots,
    x: &[f32],
    places: Places<'_>,
    kept: &MlaActivations,
    dy: &[f32],
    scratch: &mut Scratch,
    gradient: &mut [f32],
) {
    let config = pass.layout.config();
    let (hidden, heads, width) = (config.hidden_size, Heads::of(config), config.latent_width());
    let (dy, o_width) = (View::rows_of(dy, hidden), heads.count * heads.v);
    let d_heads = sized(&mut scratch.d_heads, kept.heads_out.len());
    linear_weight_gradient(slots.o_proj.view_mut(gradient), dy, View::rows_of(&kept.heads_out, o_width));
    linear_input_gradient(
        ViewMut::rows_of(d_heads, o_width),
        Into::Replace,
        dy,
        slots.o_proj.view(pass.weights),
    );

    let inputs = Inputs {
        heads,
        scale: pass.angles.softmax_scale,
        q: &kept.q,
        kv: &kept.kv,
        kv_a: &kept.kv_a,
        latent_width: width,
    };
    let outputs = Outputs { out: &kept.heads_out, d_out: d_heads, log_sum_exp: &kept.log_sum_exp };
    let dkv_a = sized(&mut scratch.dkv_a, kept.kv_a.len());
    dkv_a.fill(0.0);
    let mut gradients = InputGradients {
        dq: sized(&mut scratch.dq, kept.q.len()),
        dkv: sized(&mut scratch.dkv, kept.kv.len()),
        dkv_a,
    };
    attention::backward(&inputs, outputs, places.documents, &mut scratch.attention, &mut gradients);

    queries(pass, slots, x, places, kept, scratch, gradient);
    keys_and_values(pass, slots, x, places, kept, scratch, gradient);
}

/// Overwrites `scratch.d_normed`.
fn queries(
    pass: &Pass<'_>,
    slots: &MlaSlots,
    x: &[f32],
    places: Places<'_>,
    kept: &MlaActivations,
    scratch: &mut Scratch,
    gradient: &mut [f32],
) {
    let (w, hidden, heads) =
        (pass.weights, pass.layout.config().hidden_size, Heads::of(pass.layout.config()));
    let width = heads.count * heads.qk();
    let dq = &mut scratch.dq[..kept.q.len()];
    for (dq, position) in dq.chunks_exact_mut(width).zip(places.positions) {
        for head in dq.chunks_exact_mut(heads.qk()) {
            pass.angles.rotate_back(*position, &mut head[heads.nope..]);
        }
    }
    let (dq, xs) = (View::rows_of(dq, width), View::rows_of(x, hidden));
    let d_normed = ViewMut::rows_of(sized(&mut scratch.d_normed, x.len()), hidden);
    match &slots.q {
        QuerySlots::Direct { q_proj } => {
            linear_weight_gradient(q_proj.view_mut(gradient), dq, xs);
            linear_input_gradient(d_normed, Into::Replace, dq, q_proj.view(w));
        }
        QuerySlots::LowRank { q_a_proj, q_a_layernorm, q_b_proj } => {
            let rank = q_a_proj.rows;
            linear_weight_gradient(q_b_proj.view_mut(gradient), dq, View::rows_of(&kept.q_a_normed, rank));
            let dq_a_normed = sized(&mut scratch.dq_a_normed, kept.q_a.len());
            linear_input_gradient(ViewMut::rows_of(dq_a_normed, rank), Into::Replace, dq, q_b_proj.view(w));
            let dq_a = sized(&mut scratch.dq_a, kept.q_a.len());
            dq_a.fill(0.0);
            let rows = Rows { data: &kept.q_a, stride: rank };
            let (gain, d_gain) = (q_a_layernorm.of(w), q_a_layernorm.of_mut(gradient));
            rmsnorm::backward(rows, gain, &kept.q_a_inv_rms, dq_a_normed, dq_a, rank, d_gain);
            let dq_a = View::rows_of(dq_a, rank);
            linear_weight_gradient(q_a_proj.view_mut(gradient), dq_a, xs);
            linear_input_gradient(d_normed, Into::Replace, dq_a, q_a_proj.view(w));
        }
    }
}

/// Adds to `scratch.d_normed`.
fn keys_and_values(
    pass: &Pass<'_>,
    slots: &MlaSlots,
    x: &[f32],
    places: Places<'_>,
    kept: &MlaActivations,
    scratch: &mut Scratch,
    gradient: &mut [f32],
) {
    let (config, w) = (pass.layout.config(), pass.weights);
    let (hidden, latent, width) = (config.hidden_size, config.kv_lora_rank, config.latent_width());
    let dkv = View::rows_of(&scratch.dkv[..kept.kv.len()], slots.kv_b_proj.rows);
    linear_weight_gradient(slots.kv_b_proj.view_mut(gradient), dkv, View::rows_of(&kept.latent, latent));
    let d_latent = sized(&mut scratch.d_latent, kept.latent.len());
    linear_input_gradient(ViewMut::rows_of(d_latent, latent), Into::Replace, dkv, slots.kv_b_proj.view(w));

    let dkv_a = &mut scratch.dkv_a[..kept.kv_a.len()];
    for (dkv_a, position) in dkv_a.chunks_exact_mut(width).zip(places.positions) {
        pass.angles.rotate_back(*position, &mut dkv_a[latent..]);
    }
    let rows = Rows { data: &kept.kv_a, stride: width };
    let (gain, d_gain) = (slots.kv_a_layernorm.of(w), slots.kv_a_layernorm.of_mut(gradient));
    rmsnorm::backward(rows, gain, &kept.latent_inv_rms, d_latent, dkv_a, width, d_gain);
    let dkv_a = View::rows_of(dkv_a, width);
    linear_weight_gradient(slots.kv_a_proj_with_mqa.view_mut(gradient), dkv_a, View::rows_of(x, hidden));
    let d_normed = ViewMut::rows_of(&mut scratch.d_normed[..x.len()], hidden);
    linear_input_gradient(d_normed, Into::Add, dkv_a, slots.kv_a_proj_with_mqa.view(w));
}
