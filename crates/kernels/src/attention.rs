//! Attention of query rows over paged latents, all heads of a row sharing each cached row.
//!
//! The absorbed form of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1.2):
//! queries already live in the latent space, so keys and values are the cached rows themselves, and a row's
//! heads against the keys are a matrix product. It is computed in tiles of [`TILE`] keys, scores and weighted
//! sum one after the other while the tile is in the cache, under an online softmax (Milakov and Gimelshein,
//! arXiv 1805.02867; FlashAttention, arXiv 2205.14135).
//!
//! The order of every sum depends on the numbers of the keys alone: tiles in order inside a range of [`RANGE`]
//! keys, begun afresh, then ranges in order. So ranges may go to different threads, and neither they nor pages
//! nor other rows change a bit.

use std::cell::RefCell;
use std::ops::Range;

use crate::dot::{Aligned, LANES, Sum, flat_mut};
use crate::isa::{Isa, isa, per_isa};
use crate::latents::Latents;
use crate::pool::{Disjoint, Pool};

use tile::{Ahead, NEAR_QUERIES, Partial, QUERIES, RANGE, TILE, Weights, add_tile, finish, merge};

mod decompressed;
mod integers;
mod panel;
mod tile;

pub use decompressed::{DecompressedShape, Decompression, HeadRows, Run, attend_decompressed};

/// Most numbers of partial results (256 MB) for which rows are split only to have the threads end together.
const SPLIT_NUMBERS: usize = 1 << 26;

/// Tasks for each thread, so that none waits long for the others at the end.
const TASKS_PER_THREAD: usize = 4;

/// Cached rows of one layer, page by page.
pub struct Pages<'a> {
    /// The pages in the order of the sequence, each `[page_len, width]`; whole lanes wide, and all of one format.
    pub pages: Vec<Latents<'a>>,
    /// Rows per page.
    pub page_len: usize,
    /// Numbers from one row to the next, a multiple of 16, of eight-bit rows of 32.
    pub width: usize,
    /// Rows that may be attended to.
    pub keys: usize,
}

impl Pages<'_> {
    /// The rows of up to `N` keys as f32, widened into `room` unless they are that.
    #[inline(always)]
    fn rows<'s, const N: usize>(&'s self, keys: Range<usize>, mut room: &'s mut [f32]) -> [&'s [f32]; N] {
        let mut rows: [&[f32]; N] = [&[]; N];
        for (row, key) in rows.iter_mut().zip(keys) {
            *row = self.pages[key / self.page_len].row(self.first_number(key), self.width, &mut room);
        }
        rows
    }

    /// Numbers that [`Pages::rows`] needs room for.
    fn room(&self, rows: usize) -> usize {
        match self.pages.first() {
            None | Some(Latents::F32(_)) => 0,
            Some(Latents::I16(_) | Latents::Bf16(_) | Latents::Q8(_)) => rows * self.width,
        }
    }

    /// How many latents a row has, if rows are 16-bit integers.
    fn latents_of_integers(&self) -> Option<usize> {
        match self.pages.first() {
            Some(Latents::I16(rows)) => Some(rows.latent),
            _ => None,
        }
    }

    /// A key's row of 16-bit integers and its scales; nothing of other formats.
    #[inline(always)]
    fn integers(&self, key: usize) -> (&[i16], [f32; 2]) {
        match self.pages[key / self.page_len] {
            Latents::I16(rows) => {
                let first = self.first_number(key);
                (&rows.numbers[first..first + self.width], rows.scales[key % self.page_len])
            }
            _ => (&[], [0.0; 2]),
        }
    }

    /// Where a key's row begins in its page.
    #[inline(always)]
    fn first_number(&self, key: usize) -> usize {
        key % self.page_len * self.width
    }
}

/// Who attends to what: a row of queries sees the first `keys` rows of `pages`.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The sequence.
    pub pages: &'a Pages<'a>,
    /// How much of it: at least 1, at most `pages.keys`.
    pub keys: usize,
}

/// What stays the same for all rows.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Heads per row.
    pub heads: usize,
    /// Numbers of a query, the same as of a cached row.
    pub width: usize,
    /// The weighted sum is taken of the rows' first `value_len` numbers.
    pub value_len: usize,
    /// Scores are multiplied with it.
    pub scale: f32,
}

/// Buffers kept from one call to the next.
#[derive(Default)]
pub struct AttentionScratch {
    tasks: Vec<Task>,
    merges: Vec<Merge>,
    partial: Vec<Aligned<Sum>>,
    queries: Vec<integers::Queries>,
}

/// `out[r, h] = softmax(scale * query[r, h] · keys) values`: `query` is `[rows, heads, width]`, padding zero,
/// `out` is `[rows, heads, value_len]`.
pub fn attend(
    pool: &Pool,
    shape: &Shape,
    rows: &[Row<'_>],
    query: &[f32],
    scratch: &mut AttentionScratch,
    out: &mut [f32],
) {
    assert_eq!(query.len(), rows.len() * shape.heads * shape.width, "one query per row and head");
    assert_eq!(out.len(), rows.len() * shape.heads * shape.value_len, "one value per row and head");
    assert!(shape.width.is_multiple_of(LANES) && shape.value_len <= shape.width, "{shape:?}");
    for row in rows {
        assert!(row.pages.width == shape.width, "{} numbers in a row, {shape:?}", row.pages.width);
        assert!((1..=row.pages.keys).contains(&row.keys), "{} keys of {}", row.keys, row.pages.keys);
        let latents = row.pages.latents_of_integers().unwrap_or(shape.width);
        assert!(
            (shape.value_len..=shape.width).contains(&latents),
            "{latents} latents under a scale, {shape:?}"
        );
    }
    let out = Disjoint::new(out);
    let job = Job { isa: isa(), shape, rows, query, out: &out };
    if job.rows_are_enough(pool.threads()) {
        let groups = shape.heads.div_ceil(QUERIES);
        let tasks = rows.len() * groups;
        pool.run(tasks, |task| job.whole_row(task / groups, group(task % groups, QUERIES, shape.heads)));
    } else {
        job.split(pool, scratch);
    }
}

/// The heads of a group.
fn group(number: usize, size: usize, heads: usize) -> Range<usize> {
    number * size..heads.min((number + 1) * size)
}

/// A range of keys of what is merged, and where its result goes.
struct Task {
    merge: usize,
    range: usize,
    place: usize,
}

/// Some heads of a row, whose ranges' results lie one after the other.
struct Merge {
    row: usize,
    heads: Range<usize>,
    ranges: usize,
    place: usize,
}

struct Job<'a> {
    isa: Isa,
    shape: &'a Shape,
    rows: &'a [Row<'a>],
    query: &'a [f32],
    out: &'a Disjoint<f32>,
}

/// The queries of a task.
enum Queries<'a> {
    /// A copy where a cache line begins, and room for the rows of a tile.
    Floats(&'a [f32], &'a mut [f32]),
    /// For rows of integers.
    Integers(&'a integers::Queries),
}

/// Buffers of a task.
#[derive(Default)]
struct Work {
    /// Queries, the rows of a tile, and two partial results, where cache lines begin.
    floats: Vec<Aligned<Sum>>,
    integers: integers::Queries,
}

thread_local! {
    static WORK: RefCell<Work> = RefCell::default();
}

impl Job<'_> {
    /// Some heads of a row over all of its keys.
    fn whole_row(&self, row: usize, heads: Range<usize>) {
        let (count, keys) = (heads.len(), self.rows[row].keys);
        let partial_len = self.partial_len(count);
        self.with_work(row, heads.clone(), 2 * partial_len, |mut queries, work| {
            let (total, next) = work.split_at_mut(partial_len);
            self.range(row, 0, &mut queries, &mut self.partial(total, count));
            for range in 1..keys.div_ceil(RANGE) {
                let mut next = self.partial(next, count);
                self.range(row, range, &mut queries, &mut next);
                merge(self.isa, &mut self.partial(total, count), &next);
            }
            self.finish(row, heads, &mut self.partial(total, count));
        });
    }

    /// Whether whole rows keep the threads busy. Twice as many as threads share out well; fewer do if partial results
    /// would be too large.
    fn rows_are_enough(&self, threads: usize) -> bool {
        let tasks = self.rows.len() * self.shape.heads.div_ceil(QUERIES);
        let partials = || {
            let size = self.split_heads(threads);
            self.ranges() * self.shape.heads.div_ceil(size) * self.partial_len(size)
        };
        threads == 1 || tasks >= 2 * threads || (tasks >= threads && partials() > SPLIT_NUMBERS)
    }

    /// Ranges of keys of all rows together.
    fn ranges(&self) -> usize {
        self.rows.iter().map(|row| row.keys.div_ceil(RANGE)).sum()
    }

    /// Most heads of a task of [`Job::split`]: as many as share a range's keys, unless that leaves threads idle.
    fn split_heads(&self, threads: usize) -> usize {
        let heads = self.shape.heads;
        if self.ranges() * heads.div_ceil(QUERIES) >= TASKS_PER_THREAD * threads {
            QUERIES
        } else if heads > NEAR_QUERIES {
            NEAR_QUERIES
        } else {
            heads.div_ceil(2)
        }
    }

    /// Few rows: their ranges of keys go to different threads, and are merged in order afterwards.
    fn split(&self, pool: &Pool, scratch: &mut AttentionScratch) {
        let numbers = self.list_tasks(self.split_heads(pool.threads()), scratch);
        let AttentionScratch { tasks, merges, partial, queries } = scratch;
        let needed = numbers.div_ceil(LANES);
        if partial.len() < needed {
            partial.resize(needed, Aligned([0.0; LANES]));
        }
        let partials = Disjoint::new(flat_mut(partial));
        self.round_queries(pool, merges, queries);
        pool.run(tasks.len(), |number| {
            let Task { merge, range, place } = tasks[number];
            let Merge { row, heads, .. } = &merges[merge];
            // SAFETY: places of tasks do not overlap; `run` ends before `partial` does.
            let partial = unsafe { partials.slice(place, self.partial_len(heads.len())) };
            let mut partial = self.partial(partial, heads.len());
            match self.rows[*row].pages.latents_of_integers() {
                Some(_) => self.range(*row, range, &mut Queries::Integers(&queries[merge]), &mut partial),
                None => self.with_work(*row, heads.clone(), 0, |mut queries, _| {
                    self.range(*row, range, &mut queries, &mut partial);
                }),
            }
        });
        self.merge(pool, merges, &partials);
    }

    /// Joins the ranges of every head, one of a row a task.
    fn merge(&self, pool: &Pool, merges: &[Merge], partials: &Disjoint<f32>) {
        let groups = merges.len() / self.rows.len();
        pool.run(self.rows.len() * self.shape.heads, |number| {
            let (row, head) = (number / self.shape.heads, number % self.shape.heads);
            let of_row = &merges[row * groups..][..groups];
            let group = of_row.partition_point(|group| group.heads.end <= head);
            let Merge { heads, ranges, place, .. } = &of_row[group];
            let of_range = |range: usize| {
                let place = place + range * self.partial_len(heads.len());
                // SAFETY: a head's numbers are those of its own task; `split` ends before the slice does.
                unsafe {
                    Partial::of_one(partials, place, head - heads.start, heads.len(), self.shape.value_len)
                }
            };
            let mut total = of_range(0);
            for range in 1..*ranges {
                merge(self.isa, &mut total, &of_range(range));
            }
            self.finish(row, head..head + 1, &mut total);
        });
    }

    /// Rounds the queries of each group of heads whose rows are 16-bit integers, once for all ranges.
    fn round_queries(&self, pool: &Pool, merges: &[Merge], queries: &mut Vec<integers::Queries>) {
        if self.rows.iter().all(|row| row.pages.latents_of_integers().is_none()) {
            return;
        }
        if queries.len() < merges.len() {
            queries.resize_with(merges.len(), Default::default);
        }
        let places = Disjoint::new(queries);
        pool.run(merges.len(), |number| {
            let Merge { row, heads, .. } = &merges[number];
            // SAFETY: each place is one merge's; `run` ends before `queries` does.
            let place = unsafe { places.slice(number, 1) };
            if let Some(latent) = self.rows[*row].pages.latents_of_integers() {
                place[0].set(self.query_of(*row, heads), self.shape.width, latent);
            }
        });
    }

    /// The queries of some heads of a row.
    fn query_of(&self, row: usize, heads: &Range<usize>) -> &[f32] {
        let width = self.shape.width;
        &self.query[(row * self.shape.heads + heads.start) * width..][..heads.len() * width]
    }

    /// A task for each row, range and group of up to `size` heads, a merge for each row and group of heads. Groups that
    /// read the same keys are neighbours. Returns how many numbers the places take.
    fn list_tasks(
        &self,
        size: usize,
        AttentionScratch { tasks, merges, .. }: &mut AttentionScratch,
    ) -> usize {
        let groups = self.shape.heads.div_ceil(size);
        let mut place = 0;
        tasks.clear();
        merges.clear();
        for (row, of_row) in self.rows.iter().enumerate() {
            let (ranges, first) = (of_row.keys.div_ceil(RANGE), merges.len());
            for number in 0..groups {
                let heads = group(number, size, self.shape.heads);
                let len = self.partial_len(heads.len());
                merges.push(Merge { row, heads, ranges, place });
                place += ranges * len;
            }
            for range in 0..ranges {
                tasks.extend((first..merges.len()).map(|merge| {
                    let Merge { heads, place, .. } = &merges[merge];
                    Task { merge, range, place: place + range * self.partial_len(heads.len()) }
                }));
            }
        }
        place
    }

    /// Calls `body` with the queries as the rows need them and a buffer of `len` numbers, beginning a cache line.
    fn with_work(
        &self,
        row: usize,
        heads: Range<usize>,
        len: usize,
        body: impl FnOnce(Queries<'_>, &mut [f32]),
    ) {
        let (width, query, pages) = (self.shape.width, self.query_of(row, &heads), self.rows[row].pages);
        WORK.with_borrow_mut(|Work { floats, integers }| {
            let (copy_len, room_len) = match pages.latents_of_integers() {
                Some(latent) => {
                    integers.set(query, width, latent);
                    (0, 0)
                }
                None => (query.len(), pages.room(TILE)),
            };
            let needed = (copy_len + room_len + len).div_ceil(LANES);
            if floats.len() < needed {
                floats.resize(needed, Aligned([0.0; LANES]));
            }
            let (copy, rest) = flat_mut(floats).split_at_mut(copy_len);
            let (room, rest) = rest.split_at_mut(room_len);
            copy.copy_from_slice(&query[..copy_len]);
            let queries = match copy_len {
                0 => Queries::Integers(integers),
                _ => Queries::Floats(copy, room),
            };
            body(queries, &mut rest[..len]);
        });
    }

    fn range(&self, row: usize, range: usize, queries: &mut Queries<'_>, partial: &mut Partial<'_>) {
        let Row { pages, keys } = &self.rows[row];
        let keys = range * RANGE..(*keys).min((range + 1) * RANGE);
        match queries {
            Queries::Integers(queries) => {
                integers::attend_range(self.isa, pages, keys, queries, self.shape.scale, partial);
            }
            Queries::Floats(query, room) => {
                attend_range(self.isa, pages, keys, query, self.shape.scale, room, partial);
            }
        }
    }

    /// The weighted mean from the weighted sum.
    fn finish(&self, row: usize, heads: Range<usize>, partial: &mut Partial<'_>) {
        let len = self.shape.value_len;
        // SAFETY: each (row, head) is finished by one task; the output outlives the call.
        let out = unsafe { self.out.slice((row * self.shape.heads + heads.start) * len, heads.len() * len) };
        finish(self.isa, partial, out, len);
    }

    fn partial<'p>(&self, numbers: &'p mut [f32], heads: usize) -> Partial<'p> {
        Partial::of(numbers, heads, self.shape.value_len)
    }

    fn partial_len(&self, heads: usize) -> usize {
        Partial::len(heads, self.shape.value_len)
    }
}

per_isa! {
    /// Fills `partial` with the result over a range of keys.
    fn attend_range(pages: &Pages<'_>, keys: Range<usize>, query: &[f32], scale: f32, room: &mut [f32], partial: &mut Partial<'_>) = range_body::<false>, avx512 = range_body::<true>
}

#[inline(always)]
fn range_body<const WIDE: bool>(
    pages: &Pages<'_>,
    keys: Range<usize>,
    query: &[f32],
    scale: f32,
    room: &mut [f32],
    partial: &mut Partial<'_>,
) {
    partial.clear();
    let mut weights = Weights::new();
    for first in keys.clone().step_by(TILE) {
        let end = keys.end.min(first + TILE);
        // Behind the last tile of a range is the first of the next, which the same thread often does.
        let mut ahead = ahead::<TILE>(pages, end..pages.keys.min(end + TILE), tile::KEYS, partial);
        let rows: [&[f32]; TILE] = pages.rows(first..end, room);
        add_tile::<WIDE>(&rows[..end - first], query, scale, &mut ahead, &mut weights, partial);
    }
}

/// Rows to be asked for while a tile is added in blocks of scores of four queries and so many keys.
#[inline(always)]
fn ahead<const TILE: usize>(
    pages: &Pages<'_>,
    keys: Range<usize>,
    keys_of_block: usize,
    partial: &Partial<'_>,
) -> Ahead<TILE> {
    let (mut starts, mut row_bytes, count) = ([std::ptr::null(); TILE], 0, keys.len());
    for (start, key) in starts.iter_mut().zip(keys) {
        (*start, row_bytes) = pages.pages[key / pages.page_len].place(pages.first_number(key), pages.width);
    }
    Ahead::new(starts, count, row_bytes, keys_of_block, partial)
}
