//! The learning rate of every step, as a closed form of the step's number.

use serde::{Deserialize, Serialize};

/// The course of the learning rate after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// The rate stays the same.
    Constant,
    /// Multiplied by a factor at each milestone.
    Step,
    /// Half a cosine from the highest rate to 0.
    Cosine,
}

impl ScheduleKind {
    /// The names in recipes.
    pub const NAMES: [&str; 3] = ["constant", "step", "cosine"];
}

/// Learning rates of a whole run. No state: a resumed run asks for the same step and gets the same rate.
///
/// With T steps in all, of which the first W warm up, step t = 0, 1, ... T-1 has
///
/// - in warm-up (t < W): `lr * (t + 1) / W`;
/// - `constant`: `lr`;
/// - `step`: `lr * lr_decay^n`, n being the number of milestones m with `t >= m * T`, rounded to whole steps;
/// - `cosine`: `lr * (1 + cos(pi * (t - W) / (T - W))) / 2` (Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5,
///   without restarts).
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Course after warm-up.
    pub kind: ScheduleKind,
    /// Highest rate.
    pub lr: f64,
    /// Steps of the run.
    pub total_steps: u64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Fractions of the run.
    pub milestones: Vec<f64>,
    /// Factor at each milestone.
    pub lr_decay: f64,
}

impl Schedule {
    /// Learning rate of step `step`, counted from 0.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.lr * (step + 1) as f64 / self.warmup_steps as f64;
        }
        match self.kind {
            ScheduleKind::Constant => self.lr,
            ScheduleKind::Step => {
                let passed = |&&m: &&f64| step >= (m * self.total_steps as f64).round() as u64;
                self.milestones.iter().filter(passed).fold(self.lr, |lr, _| lr * self.lr_decay)
            }
            ScheduleKind::Cosine => {
                let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
                let t = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
                self.lr * (1.0 + cos_pi(t)) / 2.0
            }
        }
    }
}

/// cos(pi * t) for t in 0..=1, by + - * / alone so that it has the same bits everywhere; error below 1e-15.
fn cos_pi(t: f64) -> f64 {
    if t > 0.5 {
        return -cos_pi(1.0 - t);
    }
    let x2 = (std::f64::consts::PI * t) * (std::f64::consts::PI * t);
    // Taylor series to x^22, from the last term inwards.
    (1..=11).rev().fold(1.0, |sum, n| 1.0 - x2 / f64::from((2 * n - 1) * (2 * n)) * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, warmup_steps: u64) -> Schedule {
        Schedule { kind, lr: 0.1, total_steps: 1000, warmup_steps, milestones: vec![0.3, 0.6], lr_decay: 0.1 }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-15
    }

    #[test]
    fn constant_stays_and_warm_up_rises_in_equal_steps_to_it() {
        let s = schedule(ScheduleKind::Constant, 4);
        let rates: Vec<f64> = (0..6).map(|t| s.lr(t)).collect();
        for (got, want) in rates.iter().zip([0.025, 0.05, 0.075, 0.1, 0.1, 0.1]) {
            assert!(close(*got, want), "{rates:?}");
        }
        assert_eq!(s.lr(999), 0.1);
        assert_eq!(schedule(ScheduleKind::Constant, 0).lr(0), 0.1);
    }

    #[test]
    fn step_falls_exactly_at_its_milestones() {
        let s = schedule(ScheduleKind::Step, 0);
        for (step, want) in [(0, 0.1), (299, 0.1), (300, 0.01), (599, 0.01), (600, 0.001), (999, 0.001)] {
            assert!(close(s.lr(step), want), "step {step}: {}", s.lr(step));
        }
    }

    /// 200 epochs fall after 60 and 120, 20 epochs after 6 and 12, at the first step of that epoch.
    #[test]
    fn fractions_of_the_run_hit_whole_epochs() {
        for (epochs, first, second) in [(200, 60, 120), (20, 6, 12), (10, 3, 6)] {
            let s = Schedule { total_steps: epochs * 390, ..schedule(ScheduleKind::Step, 0) };
            assert!(close(s.lr(first * 390 - 1), 0.1) && close(s.lr(first * 390), 0.01), "{epochs}");
            assert!(close(s.lr(second * 390 - 1), 0.01) && close(s.lr(second * 390), 0.001), "{epochs}");
        }
    }

    #[test]
    fn cosine_starts_high_halves_in_the_middle_and_nears_zero() {
        let s = schedule(ScheduleKind::Cosine, 200);
        assert!(close(s.lr(199), 0.1) && close(s.lr(200), 0.1));
        assert!(close(s.lr(600), 0.05));
        let want = 0.1 * (1.0 + (std::f64::consts::PI * 0.25).cos()) / 2.0;
        assert!(close(s.lr(400), want), "{} {want}", s.lr(400));
        assert!(s.lr(999) > 0.0 && s.lr(999) < 1e-6);
        assert_eq!(s.lr(5000), 0.0, "beyond the end");
    }

    #[test]
    fn the_own_cosine_is_the_cosine() {
        for i in 0..=1000 {
            let t = f64::from(i) / 1000.0;
            let (own, std) = (cos_pi(t), (std::f64::consts::PI * t).cos());
            assert!((own - std).abs() < 1e-15, "{t}: {own} {std}");
        }
    }
}
