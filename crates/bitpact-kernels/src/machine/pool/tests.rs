use super::*;
use std::panic::catch_unwind;
use std::sync::atomic::AtomicU32;

/// Jobs and tasks that show what goes wrong rarely; Miri takes a thousand times as long for each.
const JOBS: usize = if cfg!(miri) { 40 } else { 2000 };

#[test]
fn every_task_runs_exactly_once_for_any_thread_count() {
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        for tasks in [0, 1, 2, 3, 64, JOBS / 2] {
            let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
            pool.run(tasks, &|task, worker| {
                assert!(worker < threads);
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} threads, {tasks} tasks");
        }
    }
}

#[test]
fn worker_numbers_are_exclusive() {
    let pool = Pool::new(4);
    let busy: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
    pool.run(JOBS / 4, &|_, worker| {
        assert_eq!(busy[worker].fetch_add(1, Ordering::AcqRel), 0);
        std::thread::yield_now();
        busy[worker].fetch_sub(1, Ordering::AcqRel);
    });
}

#[test]
fn many_small_jobs_reuse_sleeping_and_spinning_workers() {
    let pool = Pool::new(2);
    let sum = AtomicUsize::new(0);
    for _ in 0..JOBS {
        pool.run(3, &|task, _| {
            sum.fetch_add(task, Ordering::Relaxed);
        });
    }
    assert_eq!(sum.into_inner(), 3 * JOBS);
}

#[test]
fn panics_reach_the_caller_and_leave_the_pool_usable() {
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads);
        for bad in [0, 7, 19] {
            let run = || pool.run(20, &|task, _| assert!(task != bad, "task {task} failed"));
            let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            let text = payload.downcast_ref::<String>().unwrap();
            assert!(text.contains(&format!("task {bad} failed")), "{text}");
        }
        let count = AtomicUsize::new(0);
        pool.run(20, &|_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 20);
    }
}

#[test]
fn a_nested_run_is_refused_and_its_panic_reaches_the_caller() {
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        let run = || pool.run(4, &|_, _| pool.run(2, &|_, _| {}));
        let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert!(payload.downcast_ref::<&str>().unwrap().contains("inside one of its own tasks"));
        let other = Pool::new(threads);
        let count = AtomicUsize::new(0);
        pool.run(1, &|_, _| {
            other.run(5, &|_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(count.into_inner(), 5);
    }
}

#[test]
fn two_callers_take_turns() {
    let pool = Pool::new(2);
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..JOBS / 10 {
                    pool.run(4, &|_, _| {
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 2 * 4 * (JOBS / 10));
}

#[test]
fn chunks_are_disjoint_and_cover_the_slice() {
    let mut data = vec![0_u32; 1003];
    let chunked = Chunked::new(&mut data, 10);
    assert_eq!(chunked.chunks(), 101);
    Pool::new(4).run(chunked.chunks(), &|task, _| {
        chunked.get(task).iter_mut().enumerate().for_each(|(i, v)| *v += (task * 10 + i) as u32);
    });
    assert_eq!(chunked.get(100).len(), 3);
    drop(chunked);
    assert!(data.iter().enumerate().all(|(i, &v)| v == i as u32));
}

#[test]
fn a_chunk_can_be_taken_again_after_release_but_not_twice_at_once() {
    let mut data = vec![0_u8; 130];
    let chunked = Chunked::new(&mut data, 1);
    drop(chunked.get(129));
    let held = chunked.get(129);
    let _other = chunked.get(128);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(chunked.get(129)))).is_err());
    drop(held);
    drop(chunked.get(129));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(chunked.get(130)))).is_err());
}
