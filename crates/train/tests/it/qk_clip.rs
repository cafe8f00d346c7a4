//! QK-Clip on a whole model: the same inputs then give exactly `tau`.

use k2_train::qk_clip::clip;
use k2_train::step::Workers;
use serde_json::json;

use crate::models::{batch, config, params};

#[test]
fn clipped_heads_come_down_to_tau_and_others_stay() {
    for changes in [json!({}), json!({"q_lora_rank": null})] {
        let mut one_layer = changes;
        one_layer["num_hidden_layers"] = json!(1);
        let config = config(one_layer);
        let mut params = params(&config, 11);
        let batches = [batch(&config, 2, 40, 12), batch(&config, 1, 30, 13)];
        let mut workers = Workers::new(params.layout(), 2);
        let before = workers.loss(params.values(), &batches).observed.max_logits;
        let mut sorted = before.clone();
        sorted.sort_by(f32::total_cmp);
        let tau = 0.5 * (sorted[0] + sorted[1]);
        let layout = params.layout().clone();
        assert_eq!(clip(&layout, params.values_mut(), &before, tau), 2);
        let after = workers.loss(params.values(), &batches).observed.max_logits;
        for (before, after) in before.iter().zip(after) {
            assert!((after - before.min(tau)).abs() < 1e-4 * tau, "{before} became {after}, tau {tau}");
        }
    }
}
