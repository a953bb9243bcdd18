//! `bitpact accel area`: gates of multiply-accumulate units, and the proof that they compute what the interpreter does.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use bitpact::Interpreter;
use bitpact::unstable::accel::area::{self, AreaTable, MAC_TERMS, Yosys};
use bitpact::unstable::accel::{Widths, charts};
use serde_json::json;

use super::write_files;
use crate::exit::Usage;
use crate::interrupt::scratch;
use crate::loaded::{Network, open};
use crate::out::{count, print, say, table};

/// Synthesizes multiply-accumulate units of every pair of widths with yosys, and tabulates area and depth
#[derive(clap::Args)]
#[command(after_help = "\
Without yosys, or with --committed, the table that is part of the program is shown; it was made by this command.

Examples:
  bitpact accel area --output DIR                        mac-area.csv, area.svg, Verilog of units and of an array
  bitpact accel area --bits 2 --bits 4                   only some widths
  bitpact accel area --simulate run/model.bitpact --layer layer1.0.act1   (needs iverilog)")]
pub(crate) struct Args {
    /// Widths of either operand, 1 to 16; more than once for several [default: 1 to 8, and 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    bits: Vec<u8>,
    /// Show the table that is part of the program
    #[arg(long)]
    committed: bool,
    /// Folder for the table, its chart and the Verilog
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Rows and columns of the systolic array that is written or simulated
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    array: u16,
    /// Instead of areas: runs a layer of this integer network on the array's Verilog and compares with the interpreter
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["bits", "committed", "output"])]
    simulate: Option<PathBuf>,
    /// Layer to simulate; the second one of the network where not given
    #[arg(long, value_name = "NAME", requires = "simulate")]
    layer: Option<String>,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let _scratch = scratch()?;
    if args.simulate.is_some() {
        return simulate(&args);
    }
    let widths: Vec<u8> = if args.bits.is_empty() { AreaTable::widths().collect() } else { args.bits.clone() };
    let areas = areas(&widths, args.committed)?;
    if let Some(folder) = &args.output {
        write(folder, &args, &widths, &areas)?;
    }
    if args.json {
        let object = json!({ "source": areas.source, "terms": MAC_TERMS, "pairs": areas.rows().collect::<Vec<_>>() });
        return print(&object.to_string());
    }
    let head = ["bits", "sum bits", "multiplier", "depth", "unit", "depth", "over W2A2"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let two = AreaTable::committed().mac(Widths::same(2).expect("a width"));
    rows.extend(areas.rows().map(|r| {
        vec![
            format!("W{}A{}", r.weight_bits, r.activation_bits),
            r.accumulator_bits.to_string(),
            r.multiplier_transistors.to_string(),
            r.multiplier_depth.to_string(),
            r.mac_transistors.to_string(),
            r.mac_depth.to_string(),
            format!("{:.2}", r.mac_transistors as f64 / two),
        ]
    }));
    print(&format!(
        "Transistors, and gates on the longest path; sums of {MAC_TERMS} products ({})\n\n{}",
        areas.source,
        table(&rows, &[0])
    ))
}

/// The areas of every pair of `widths`: from yosys, or from the committed table.
fn areas(widths: &[u8], committed: bool) -> Result<AreaTable> {
    let wanted = || widths.iter().flat_map(|&a| widths.iter().filter_map(move |&w| Widths::new(a, w)));
    let from_table = || {
        let table = AreaTable::committed();
        let rows = wanted().map(|pair| {
            table
                .get(pair)
                .copied()
                .ok_or_else(|| Usage(format!("--bits: {pair} is not in the table; yosys can add it")))
        });
        Ok(AreaTable::new(table.source.clone(), rows.collect::<Result<Vec<_>, _>>()?))
    };
    if committed {
        return from_table();
    }
    let yosys = match Yosys::find() {
        Ok(yosys) => yosys,
        Err(error) => {
            say!("{error}; showing the table that is part of the program");
            return from_table();
        }
    };
    let mut rows = Vec::new();
    for pair in wanted() {
        say!("yosys: {pair}");
        rows.push(yosys.pair(pair)?);
    }
    let source = format!("yosys {}: synth -flatten, abc -g cmos4, stat -tech cmos, ltp -noff", yosys.version());
    let areas = AreaTable::new(source, rows);
    let differences = AreaTable::committed().differences(&areas);
    say!("{} of {} pairs differ from the committed table", differences, areas.rows().count());
    Ok(areas)
}

fn write(folder: &std::path::Path, args: &Args, widths: &[u8], areas: &AreaTable) -> Result<()> {
    let mut files = vec![("mac-area.csv".to_owned(), areas.to_csv())];
    if areas.get(Widths::same(2).expect("a width")).is_some() {
        files.push(("area.svg".to_owned(), charts::area(areas)?));
    }
    for &bits in widths {
        let pair = Widths::same(bits).expect("checked by the parser");
        let side = usize::from(args.array);
        files.push((format!("mac_{pair}.v"), area::mac(pair, MAC_TERMS)));
        files.push((format!("array_{pair}_{side}x{side}.v"), area::array(pair, MAC_TERMS, side, side)));
    }
    let files: Vec<(&str, String)> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    write_files(folder, &files)
}

fn simulate(args: &Args) -> Result<()> {
    let path = args.simulate.as_ref().expect("called with it");
    let Network::Integer { model, .. } = open(path)?.network else {
        bail!("{}: a float network has no integers to compare", path.display());
    };
    let chosen = match &args.layer {
        Some(name) => model.layers.iter().position(|l| l.name == *name || l.op.products().any(|p| p.name == *name)),
        None => (1..model.layers.len()).find(|&i| model.layers[i].op.products().next().is_some()),
    };
    let products = |i: &usize| model.layers[*i].op.products().next().is_some();
    let Some(layer) = chosen.filter(products) else {
        let names = model.layers.iter().filter(|l| l.op.products().next().is_some()).map(|l| l.name.as_str());
        let known = names.collect::<Vec<_>>().join(", ");
        return Err(Usage(format!("--layer: expected a layer with weights: {known}")).into());
    };
    // A picture of every brightness, the same on every machine.
    let pixels: Vec<u8> = (0..model.example_bytes()).map(|i| (i * 37 % 251) as u8).collect();
    let trace = Interpreter::new(&model).run(&pixels);
    let side = usize::from(args.array);
    let outcome = area::check_layer(&model, layer, &pixels, &trace.tensors, side, side)
        .with_context(|| format!("{}: layer `{}`", path.display(), model.layers[layer].name))?;
    if args.json {
        print(&serde_json::to_string(&outcome)?)?;
    } else {
        print(&format!(
            "{}: {} on a {side}x{side} array of {} units, {} multiply-adds: {} of {} values differ from the interpreter's",
            model.layers[layer].name,
            model.arch,
            outcome.widths,
            count(outcome.macs),
            outcome.differing,
            outcome.values
        ))?;
    }
    if outcome.differing > 0 {
        bail!("the array does not compute what the interpreter does");
    }
    Ok(())
}
