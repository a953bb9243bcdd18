//! `bitpact accel paper`: figure 6 of the PACT paper beside ours.

use std::path::PathBuf;

use anyhow::Result;
use bitpact::unstable::accel::paper::{self, BANDWIDTHS, BITS, Study};
use bitpact::unstable::accel::{AreaTable, charts};
use bitpact::unstable::graph::zoo;
use serde_json::{Value, json};

use super::{bandwidth_name, usual_sizes, write_files};
use crate::out::{print, table};

/// Rebuilds figure 6 of the PACT paper (area and throughput at 16, 8, 4 and 2 bits) beside its values
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact accel paper
  bitpact accel paper --network mobilenet_v2             the same study of another network
  bitpact accel paper --output charts                    area.svg, throughput.svg")]
pub(crate) struct Args {
    /// Network of the throughput; the paper's values are of ResNet-50, with the stride on the first 1x1 convolution of
    /// a stage
    #[arg(long, value_name = "ARCH", default_value = "resnet50-v1")]
    network: String,
    /// Folder for the charts
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let is_papers = args.network == "resnet50-v1";
    let areas = AreaTable::committed();
    let graph = if is_papers { paper::resnet50()? } else { zoo_graph(&args.network)? };
    let study = paper::study(&graph, &areas)?;
    if let Some(folder) = &args.output {
        write_files(folder, &[("area.svg", charts::area(&areas)?), ("throughput.svg", charts::throughput(&study)?)])?;
    }
    print(&if args.json { json_object(&study, is_papers).to_string() } else { text(&study, is_papers, &areas) })
}

fn zoo_graph(name: &str) -> Result<bitpact::Graph> {
    let (input, classes) = usual_sizes(name);
    match zoo::build(name, input, classes) {
        Some(graph) => Ok(graph?),
        None => {
            let known = zoo::NAMES.join(", ");
            Err(crate::exit::Usage(format!("--network {name}: expected resnet50-v1 or one of {known}")).into())
        }
    }
}

fn json_object(study: &Study, is_papers: bool) -> Value {
    let area = BITS.iter().zip(study.area).zip(paper::AREA);
    let area = area.map(|((bits, ours), paper)| json!({ "bits": bits, "ours": ours, "paper": paper }));
    let throughput = BITS.iter().enumerate().flat_map(|(i, bits)| {
        BANDWIDTHS.iter().enumerate().map(move |(j, gbps)| {
            let paper = is_papers.then_some(paper::THROUGHPUT[i][j]);
            json!({ "bits": bits, "bandwidth_gbps": gbps, "ours": study.throughput[i][j], "paper": paper })
        })
    });
    json!({
        "network": study.network,
        "area": area.collect::<Vec<_>>(),
        "throughput": throughput.collect::<Vec<_>>(),
        "speed_up_16_to_4": { "ours": study.speed_up_16_to_4, "paper": is_papers.then_some(paper::SPEED_UP_16_TO_4) },
        "first_last_gain": { "ours": study.first_last_gain[1], "paper": is_papers.then_some(paper::FIRST_LAST_GAIN) },
        "fits_on_chip_up_to_bits": study.resident_width,
        "fitted_constants": [],
    })
}

fn text(study: &Study, is_papers: bool, areas: &AreaTable) -> String {
    let head = |cells: &[&str]| cells.iter().map(|&c| c.to_owned()).collect::<Vec<_>>();
    let mut out =
        format!("Area of a multiply-accumulate unit over that of 2 bits ({}; paper: figure 6(b))\n\n", areas.source);
    let mut rows = vec![head(&["bits", "ours", "paper"])];
    for (i, bits) in BITS.iter().enumerate() {
        rows.push(vec![format!("W{bits}A{bits}"), format!("{:.1}", study.area[i]), format!("{:.1}", paper::AREA[i])]);
    }
    out += &table(&rows, &[0]);
    out += &format!("\nImages a second of {} (batch 1, no fitted constant; paper: figure 6(c))\n\n", study.network);
    let mut rows = vec![head(&["bits", "bandwidth", "ours", "paper", "error", "all on chip"])];
    for (i, bits) in BITS.iter().enumerate() {
        for (j, &gbps) in BANDWIDTHS.iter().enumerate() {
            let (ours, papers) = (study.throughput[i][j], paper::THROUGHPUT[i][j]);
            let of_paper = |text: String| if is_papers { text } else { "-".to_owned() };
            rows.push(vec![
                format!("W{bits}A{bits}"),
                bandwidth_name(gbps),
                format!("{ours:.0}"),
                of_paper(format!("{papers:.0}")),
                of_paper(format!("{:+.1} %", (ours / papers - 1.0) * 100.0)),
                if study.resident[i] { "yes" } else { "no" }.to_owned(),
            ]);
        }
    }
    out += &table(&rows, &[0, 1]);
    out += "\n";
    let beside =
        |papers: f64, digits: usize| if is_papers { format!(" (paper {papers:.digits$})") } else { String::new() };
    out += &format!(
        "16 to 4 bits at 64 GB/s: {:.2} times{}\n",
        study.speed_up_16_to_4,
        beside(paper::SPEED_UP_16_TO_4, 2)
    );
    out += &format!(
        "first and last layers at the others' width: {:.2} times at 2 bits{}, {:.2} times at 4\n",
        study.first_last_gain[1],
        beside(paper::FIRST_LAST_GAIN, 2),
        study.first_last_gain[0]
    );
    match study.resident_width {
        Some(bits) => out += &format!("everything stays on chip up to {bits} bits\n"),
        None => out += "not even at 1 bit does everything stay on chip\n",
    }
    out
}
