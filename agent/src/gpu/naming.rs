//! What is a GPU of this model called as a GRES type?
//!
//! As sites call theirs in Slurm: `h100`, `a100`, `rtx_4090`. The rest of what a driver says
//! (memory, form, interconnect) is in the model's name, which is told beside it.

/// Words of makers and brands that say nothing about the part.
const BRANDS: &[&str] = &["nvidia", "tesla", "geforce", "quadro", "amd", "instinct"];

/// Words that name a line of parts; what follows names the part.
const LINES: &[&str] = &["rtx", "gtx", "titan", "pro", "grid"];

/// The type of a model; `gpu` where the name says nothing.
pub(super) fn gres_type(model: &str) -> String {
    let words = model.split_ascii_whitespace().map(str::to_ascii_lowercase);
    let mut name = String::new();
    for word in words.skip_while(|word| BRANDS.contains(&word.as_str())) {
        // What follows a hyphen is the form: `a100-sxm4-40gb`.
        let head = word.split('-').next().unwrap_or_default();
        let plain: String =
            head.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if plain.is_empty() {
            continue;
        }
        if !name.is_empty() {
            name.push('_');
        }
        name.push_str(&plain);
        if !LINES.contains(&plain.as_str()) {
            break;
        }
    }
    if name.is_empty() { "gpu".to_owned() } else { name }
}

/// The name of a MIG profile where a driver does not tell it: `1g.10gb`, from NVML's number,
/// compute slices and memory, which is rounded up as NVIDIA does.
pub(super) fn profile_name(number: u32, compute: u32, memory_mib: u64) -> String {
    let suffix = if matches!(number, 7 | 8) { "+me" } else { "" };
    format!("{compute}g.{}gb{suffix}", memory_mib.div_ceil(1024))
}

/// A PCI address as sysfs writes it, from NVML's: `00000000:3B:00.0` is `0000:3b:00.0`.
pub(super) fn bdf(bus_id: &str) -> String {
    let bus_id = bus_id.to_ascii_lowercase();
    match bus_id.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 => format!("{}:{rest}", &domain[4..]),
        _ => bus_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_short_types() {
        for (model, expect) in [
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA A100-SXM4-40GB", "a100"),
            ("NVIDIA A30", "a30"),
            ("NVIDIA L40S", "l40s"),
            ("NVIDIA H200", "h200"),
            ("NVIDIA GH200 480GB", "gh200"),
            ("Tesla V100-SXM2-16GB", "v100"),
            ("NVIDIA GeForce RTX 4090", "rtx_4090"),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx_pro_6000"),
            ("NVIDIA", "gpu"),
            ("", "gpu"),
        ] {
            assert_eq!(gres_type(model), expect, "{model}");
        }
    }

    #[test]
    fn profiles_and_addresses_are_written_as_usual() {
        assert_eq!(profile_name(0, 1, 9_856), "1g.10gb");
        assert_eq!(profile_name(7, 1, 4_864), "1g.5gb+me");
        assert_eq!(bdf("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(bdf("0000:3b:00.0"), "0000:3b:00.0");
    }
}
