//! The pool and its shares in many orders of their threads, each found again by the seed that shuttle prints. Shuttle
//! takes memory as sequentially consistent; weaker orders are Miri's and ThreadSanitizer's.

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::{check_pct, check_random};

use super::pool::{Chunked, Pool};
use super::shares::Shares;

/// Orders that are tried.
const ORDERS: usize = 2000;

/// Runs `test` in random orders, and in those that preempt a thread at few, well chosen places.
fn in_many_orders(test: fn()) {
    check_random(test, ORDERS);
    check_pct(test, ORDERS, 3);
}

#[test]
fn jobs_run_every_task_once_and_end() {
    in_many_orders(|| {
        let pool = Pool::new(3);
        for tasks in [2, 5, 1] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, &|task, worker| {
                assert!(worker < 3);
                counts[task].fetch_add(1, Ordering::SeqCst);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::SeqCst) == 1));
        }
    });
}

#[test]
fn worker_numbers_and_chunks_are_exclusive() {
    in_many_orders(|| {
        let pool = Pool::new(2);
        let mut numbers = vec![0; 6];
        let chunks = Chunked::new(&mut numbers, 2);
        let busy = [AtomicUsize::new(0), AtomicUsize::new(0)];
        pool.run(3, &|task, worker| {
            assert_eq!(busy[worker].fetch_add(1, Ordering::SeqCst), 0);
            chunks.get(task)[1] = task + 1;
            busy[worker].fetch_sub(1, Ordering::SeqCst);
        });
        drop(chunks);
        assert_eq!(numbers, [0, 1, 0, 2, 0, 3]);
    });
}

#[test]
fn callers_take_turns() {
    in_many_orders(|| {
        let pool = std::sync::Arc::new(Pool::new(2));
        let count = std::sync::Arc::new(AtomicUsize::new(0));
        let call = |pool: &Pool, count: &AtomicUsize| {
            pool.run(2, &|_, _| {
                count.fetch_add(1, Ordering::SeqCst);
            });
        };
        let other = {
            let (pool, count) = (std::sync::Arc::clone(&pool), std::sync::Arc::clone(&count));
            shuttle::thread::spawn(move || call(&pool, &count))
        };
        call(&pool, &count);
        other.join().unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 4);
    });
}

#[test]
fn every_block_of_every_strip_is_shared_out_once() {
    in_many_orders(|| {
        const BLOCKS: usize = 4;
        let shares = Shares::new(2, 3, BLOCKS, 1);
        let done: Vec<AtomicUsize> = (0..3 * BLOCKS).map(|_| AtomicUsize::new(0)).collect();
        Pool::new(2).run(2, &|_, worker| {
            let mut last = None;
            while let Some(share) = shares.take(worker, last.as_ref()) {
                for block in share.blocks.clone() {
                    done[share.strip * BLOCKS + block].fetch_add(1, Ordering::SeqCst);
                }
                last = Some(share);
            }
        });
        assert!(done.iter().all(|count| count.load(Ordering::SeqCst) == 1));
    });
}

#[test]
#[should_panic(expected = "an update was lost")]
fn an_update_that_can_be_lost_is_found() {
    check_random(
        || {
            let pool = Pool::new(2);
            let count = AtomicUsize::new(0);
            pool.run(2, &|_, _| count.store(count.load(Ordering::SeqCst) + 1, Ordering::SeqCst));
            assert_eq!(count.load(Ordering::SeqCst), 2, "an update was lost");
        },
        ORDERS,
    );
}
