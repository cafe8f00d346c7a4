//! The gated feed-forward part (SwiGLU, arXiv 2002.05202) of several experts at once.
//!
//! Two loops over the pool, whatever the number of experts: `hidden = silu(gate_proj x) * up_proj x` over
//! (expert, rows of the hidden width), then `out += weight * down_proj hidden` over rows of the output. So one
//! token's few experts keep all threads busy, and hidden rows are quantised where they are made. A token's sum
//! is taken in the order of the experts, whoever else is in the batch.

use crate::exp::silu_mul;
use crate::inputs::{Form, Inputs, Writer};
use crate::isa::{Isa, isa};
use crate::matmul::{Outputs, ROWS, block_product, output_blocks, rows_per_task, with_outputs};
use crate::matrix::Matrix;
use crate::pool::{Disjoint, Parts, Pool};
use crate::prefetch::RowStart;
use std::ops::Range;

/// An expert and the tokens that go through it.
#[derive(Clone, Copy)]
pub struct Expert<'a> {
    /// `[intermediate, hidden]`.
    pub gate_proj: &'a Matrix,
    /// `[intermediate, hidden]`.
    pub up_proj: &'a Matrix,
    /// `[hidden, intermediate]`.
    pub down_proj: &'a Matrix,
    /// The segment of the inputs that holds its tokens.
    pub segment: usize,
    /// What becomes of its output.
    pub share: Share<'a>,
}

/// How an expert's output joins that of the others.
#[derive(Clone, Copy)]
pub enum Share<'a> {
    /// It is the output, for every token: dense layers and shared experts. Comes before all others.
    Whole,
    /// It is added to some tokens' output, for each times a weight.
    Weighted {
        /// Rows of the output, one for each row of the segment.
        tokens: &'a [u32],
        /// As many weights.
        weights: &'a [f32],
    },
}

/// `out` (`[T, hidden]`) takes the shares of experts 0 to `count - 1`; `hidden` is scratch.
pub fn swiglu<'a>(
    pool: &Pool,
    count: usize,
    expert: impl Fn(usize) -> Expert<'a> + Sync,
    inputs: &Inputs,
    hidden: &mut Inputs,
    out: &mut [f32],
) {
    if count > 0 {
        let experts = Experts { count, expert: &expert };
        gate_and_up(pool, &experts, inputs, hidden);
        down(pool, &experts, hidden, out);
    }
}

/// The experts of one call, described where they are asked for, so that no list of them is made.
struct Experts<'e, 'a> {
    count: usize,
    expert: &'e (dyn Fn(usize) -> Expert<'a> + Sync),
}

impl<'a> Experts<'_, 'a> {
    fn get(&self, number: usize) -> Expert<'a> {
        (self.expert)(number)
    }

    fn iter(&self) -> impl Iterator<Item = Expert<'a>> {
        (0..self.count).map(self.expert)
    }
}

fn gate_and_up(pool: &Pool, experts: &Experts<'_, '_>, inputs: &Inputs, hidden: &mut Inputs) {
    let rows: usize = experts.iter().map(|expert| 2 * expert.gate_proj.rows()).sum();
    let tokens: usize = experts.iter().map(|expert| inputs.rows(expert.segment)).sum();
    let step = rows_per_task(pool, experts.get(0).gate_proj.cols() * tokens.div_ceil(experts.count), rows);
    let writer = hidden.writer(
        inputs.precision(),
        experts.iter().map(|expert| expert.down_proj),
        experts.iter().map(|expert| (inputs.rows(expert.segment), expert.gate_proj.rows())),
    );
    let most = experts.iter().map(|expert| expert.gate_proj.rows().div_ceil(step)).max().unwrap_or(0);
    let isa = isa();
    pool.run_parts(Parts::Alike { matrices: experts.count, parts: most }, |number, part| {
        let first = part * step;
        let expert = experts.get(number);
        let rows = first..expert.gate_proj.rows().min(first + step);
        // A guess: at the end of a node's share it is another thread's.
        let then = match number + 1 {
            _ if rows.end < expert.gate_proj.rows() => RowStart::of(expert.gate_proj, rows.end),
            next if next < experts.count => RowStart::of(experts.get(next).gate_proj, 0),
            _ => RowStart::NOWHERE,
        };
        with_outputs(|outputs| hidden_rows(isa, (number, &expert), rows, then, inputs, outputs, &writer));
    });
}

/// Some columns of an expert's hidden rows, for all its tokens; `then` is what the thread will read next.
fn hidden_rows(
    isa: Isa,
    (number, expert): (usize, &Expert<'_>),
    rows: Range<usize>,
    then: RowStart,
    inputs: &Inputs,
    [gates, ups]: &mut [Outputs; 2],
    writer: &Writer<'_>,
) {
    let Expert { gate_proj, up_proj, segment, .. } = *expert;
    let form = Form::of(inputs.precision(), expert.down_proj);
    for block in output_blocks(inputs, gate_proj, segment, rows.clone()) {
        block_product(isa, gate_proj, &block, RowStart::of(up_proj, block.row), inputs, segment, gates);
        let then = if block.end() < rows.end { RowStart::of(gate_proj, block.end()) } else { then };
        block_product(isa, up_proj, &block, then, inputs, segment, ups);
        for t in 0..block.tokens {
            let (gate, up) = (&mut gates[t * ROWS..][..block.rows], block.of_token(t, ups));
            silu_mul(gate, up);
            // SAFETY: each token's columns are made by one task.
            unsafe { writer.write(form, isa, number, block.token + t, block.row, gate) };
        }
    }
}

fn down(pool: &Pool, experts: &Experts<'_, '_>, hidden: &Inputs, out: &mut [f32]) {
    let rows = experts.get(0).down_proj.rows();
    // Tasks are cut by these rows: of another width, an expert's would overlap.
    assert!(experts.iter().all(|expert| expert.down_proj.rows() == rows), "experts of one output width");
    let work: usize = experts.iter().enumerate().map(|(i, e)| hidden.rows(i) * e.down_proj.cols()).sum();
    let step = rows_per_task(pool, work, rows);
    let (out, isa) = (Disjoint::new(out), isa());
    pool.run(rows.div_ceil(step), |task| {
        let rows = task * step..rows.min((task + 1) * step);
        with_outputs(|[sums, _]| {
            for (number, expert) in experts.iter().enumerate() {
                let then = match number + 1 {
                    next if next < experts.count => RowStart::of(experts.get(next).down_proj, rows.start),
                    _ => RowStart::of(experts.get(0).down_proj, rows.end),
                };
                down_rows(isa, (number, &expert), rows.clone(), then, hidden, sums, &out);
            }
        });
    });
}

/// Some columns of the output take an expert's share; `then` is what the thread will read next, `sums` is scratch.
fn down_rows(
    isa: Isa,
    (number, expert): (usize, &Expert<'_>),
    rows: Range<usize>,
    then: RowStart,
    hidden: &Inputs,
    sums: &mut Outputs,
    out: &Disjoint<f32>,
) {
    let width = expert.down_proj.rows();
    for block in output_blocks(hidden, expert.down_proj, number, rows.clone()) {
        let then = if block.end() < rows.end { RowStart::of(expert.down_proj, block.end()) } else { then };
        block_product(isa, expert.down_proj, &block, then, hidden, number, sums);
        for t in 0..block.tokens {
            let (place, sums) = (block.token + t, block.of_token(t, sums));
            let (token, weight) = match expert.share {
                Share::Whole => (place, None),
                Share::Weighted { tokens, weights } => (tokens[place] as usize, Some(weights[place])),
            };
            // SAFETY: each column of the output is written by one task; `run` ends before `out` does.
            let out = unsafe { out.slice(token * width + block.row, block.rows) };
            match weight {
                None => out.copy_from_slice(sums),
                Some(weight) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += weight * sum),
            }
        }
    }
}
