use super::*;
use bitpact_train::{LayerStatistics, WarningKind, WarningRecord};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn epoch(n: u32) -> EpochRecord {
    let text = r#"{"epoch":1,"step":10,"lr":0.1,"loss":1.5,"train_top1":0.4,"integer_top1":0.5,"test_images":1000,
        "test_images_per_s":1000.0,"images_per_s":250.0,"seconds":9.0}"#;
    let mut record: EpochRecord = serde_json::from_str(text).unwrap();
    let layer = |i: usize| LayerStatistics {
        name: format!("layer{i}.act"),
        alpha: 8.0 - 0.1 * n as f32 + i as f32,
        clipped: if i == 1 { 0.6 } else { 0.01 },
        zero: 0.5,
        occupancy: vec![0.5, 0.25, 0.25, 0.0],
        ..LayerStatistics::default()
    };
    (record.epoch, record.loss, record.integer_top1) = (n, 2.0 / f64::from(n), Some(0.5 + 0.01 * f64::from(n)));
    record.layers = (0..20).map(layer).collect();
    record
}

fn dashboard(epochs: u32) -> Dashboard {
    let mut dashboard =
        Dashboard { name: "my-run".to_owned(), epochs: Some(20), bits: "W2A2".to_owned(), ..Dashboard::default() };
    dashboard.records.epochs = (1..=epochs).map(epoch).collect();
    dashboard
}

fn drawn(dashboard: &Dashboard, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| dashboard.draw(frame)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn what_counts_is_seen_on_small_and_large_terminals() {
    for (width, height) in [(80, 24), (200, 50)] {
        let text = drawn(&dashboard(10), width, height);
        for part in [
            "my-run",
            "W2A2",
            "60.00 %",
            "10 of 20 epochs",
            "250 images/s",
            "100 s left",
            "loss 0.2000",
            "layer1.act",
            " 60.00",
        ] {
            assert!(text.contains(part), "no {part:?} on {width}x{height}:\n{text}");
        }
        assert!(!text.contains("warnings"), "{text}");
        assert_eq!(text.contains("shares"), width == 200, "{text}");
    }
}

#[test]
fn every_size_can_be_drawn_with_and_without_records() {
    let mut full = dashboard(10);
    full.records.warnings = vec![warning("much is clipped")];
    for dashboard in [Dashboard::default(), dashboard(1), full] {
        for (width, height) in [(1, 1), (2, 3), (10, 5), (40, 12), (80, 24), (300, 9), (20, 90)] {
            drawn(&dashboard, width, height);
        }
    }
}

fn warning(message: &str) -> WarningRecord {
    let (layer, message) = ("layer1.act".to_owned(), message.to_owned());
    WarningRecord { epoch: 3, step: 30, warning: WarningKind::Clipping, layer, message }
}

#[test]
fn warnings_are_shown_the_last_one_first() {
    let mut dashboard = dashboard(3);
    dashboard.records.warnings = vec![warning("the first one"), warning("the second one")];
    let text = drawn(&dashboard, 80, 24);
    assert!(text.contains("2 warnings"), "{text}");
    assert!(text.find("the second one").unwrap() < text.find("the first one").unwrap_or(usize::MAX), "{text}");
}

#[test]
fn layers_that_do_not_fit_are_scrolled_to_and_the_end_is_the_last() {
    let mut dashboard = dashboard(3);
    assert!(!drawn(&dashboard, 80, 24).contains("layer19.act"));
    dashboard.scroll = 100;
    let text = drawn(&dashboard, 80, 24);
    assert!(text.contains("layer19.act") && text.contains("of 20"), "{text}");
}

#[test]
fn a_run_under_way_tells_its_speed_and_what_is_left() {
    let (mut dashboard, began) = (dashboard(10), Instant::now());
    for step in 1..=5u64 {
        let now = began + Duration::from_secs(step);
        dashboard.take(&Event::Step { epoch: 11, batch: step, batches: 10, loss: 0.125 }, 64, now);
    }
    let live = dashboard.live.clone().unwrap();
    assert_eq!((live.images_per_s, live.done), (Some(64.0), 0.5));
    // An epoch takes 9 seconds and its evaluation one; nine and a half are left.
    assert_eq!(dashboard.seconds_left(), Some(95.0));
    let text = drawn(&dashboard, 100, 30);
    for part in ["epoch 11 of 20", "50 %", "loss 0.1250", "64 images/s", "the run goes on"] {
        assert!(text.contains(part), "no {part:?}:\n{text}");
    }
    dashboard.take(&Event::Evaluating { simulated: false, done: 250, images: 1000 }, 64, began);
    assert!(drawn(&dashboard, 100, 30).contains("evaluating 25 %"));
    for n in 11..=20 {
        dashboard.take(&Event::Epoch(&epoch(n)), 64, began);
    }
    dashboard.take(&Event::Warning(&warning("at the end")), 64, began);
    let text = drawn(&dashboard, 100, 30);
    assert!(dashboard.is_finished() && text.contains("finished") && text.contains("at the end"), "{text}");
}

#[test]
fn a_run_elsewhere_that_has_gone_silent_says_so() {
    let mut dashboard = dashboard(10);
    dashboard.silent = Some(Duration::from_secs(15));
    // Ten epochs of ten seconds; more than one of them cannot have passed.
    assert_eq!(dashboard.seconds_left(), Some(90.0));
    assert!(!drawn(&dashboard, 120, 30).contains("no epoch for"));
    dashboard.silent = Some(Duration::from_secs(600));
    assert!(drawn(&dashboard, 120, 30).contains("no epoch for 10 min"));
}
