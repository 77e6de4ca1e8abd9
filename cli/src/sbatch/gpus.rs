//! What does sbatch ask of a job's GPUs?

use penstock_proto::v1;
use penstock_vocab::{GresRequest, Mib, parse_gpus, parse_gres_list};

use super::request::BadValue;

/// The options about GPUs beside `--gpus`, `--gpus-per-node` and `--gres`. Empty: none was given.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct GpuOptions {
    pub(crate) per_task: Option<v1::GresCount>,
    pub(crate) per_socket: Option<v1::GresCount>,
    pub(crate) sockets_per_node: u32,
    pub(crate) cpus_per_gpu: Option<u32>,
    pub(crate) bind: String,
    /// Any of these will do, in order of preference.
    pub(crate) choices: Vec<v1::GresChoice>,
    /// Why idle GPUs are no mistake.
    pub(crate) idle_ok: String,
}

impl GpuOptions {
    /// Writes them into a job.
    pub(crate) fn fill(&self, spec: &mut v1::JobSpec, per_gpu: Option<Mib>) {
        spec.gpus_per_task.clone_from(&self.per_task);
        spec.gpus_per_socket.clone_from(&self.per_socket);
        spec.sockets_per_node = self.sockets_per_node;
        spec.cpus_per_gpu = self.cpus_per_gpu;
        spec.mem_per_gpu_mib = per_gpu.map(|size| size.0);
        spec.gpu_bind.clone_from(&self.bind);
        spec.gres_choices.clone_from(&self.choices);
        spec.idle_ok.clone_from(&self.idle_ok);
    }
}

/// Counts as the wire has them.
pub(crate) fn counts(requests: Vec<GresRequest>) -> Vec<v1::GresCount> {
    let count = |request: GresRequest| v1::GresCount {
        name: request.name.name().to_owned(),
        r#type: request.name.kind().unwrap_or_default().to_owned(),
        count: request.count,
    };
    requests.into_iter().map(count).collect()
}

/// GPUs of one type, or of any. `option`: its long name.
///
/// # Errors
/// Where the value has several types, or none of the forms.
pub(crate) fn one_type(option: &str, text: &str) -> Result<Option<v1::GresCount>, BadValue> {
    let wrong = |error: penstock_vocab::GresError| {
        BadValue(vec![error.to_string(), format!("Invalid --{option} specification")])
    };
    let mut counts = counts(parse_gpus(text).map_err(wrong)?);
    if counts.len() > 1 {
        return Err(BadValue(vec![format!(
            "--{option}={text}: one type of GPU can be given here; use --gres for several"
        )]));
    }
    Ok(counts.pop())
}

/// The value of `--gres`: a list, or several joined by `|`, of which any will do.
///
/// # Errors
/// Where a list has none of the forms.
pub(crate) fn gres(text: &str) -> Result<(Vec<v1::GresCount>, Vec<v1::GresChoice>), BadValue> {
    let list = |text: &str| {
        let wrong = "Invalid generic resource (gres) specification";
        let list = parse_gres_list(text)
            .map_err(|error| BadValue(vec![error.to_string(), wrong.to_owned()]))?;
        Ok(counts(list))
    };
    if !text.contains('|') {
        return Ok((list(text)?, Vec::new()));
    }
    let choice = |part: &str| {
        let gres = list(part)?;
        if gres.is_empty() {
            let line = format!("--gres={text}: one of the choices is empty");
            return Err(BadValue(vec![line]));
        }
        Ok(v1::GresChoice { gres })
    };
    Ok((Vec::new(), text.split('|').map(choice).collect::<Result<_, _>>()?))
}

/// The value of `--gpu-bind`, checked: it is kept as typed for the job's steps.
///
/// # Errors
/// Where it is none of Slurm's words.
pub(crate) fn bind(text: &str) -> Result<String, BadValue> {
    let word = text.trim();
    let rest = word.strip_prefix("verbose,").unwrap_or(word);
    let numbers = |list: &str| {
        let number = |entry: &str| match entry.split_once('*') {
            Some((value, times)) => is_number(value) && times.parse::<u32>().is_ok(),
            None => is_number(entry),
        };
        !list.is_empty() && list.split(',').all(number)
    };
    let known = matches!(rest, "closest" | "none" | "verbose")
        || rest.strip_prefix("single:").is_some_and(|n| n.parse().is_ok_and(|n: u32| n > 0))
        || rest.strip_prefix("per_task:").is_some_and(|n| n.parse().is_ok_and(|n: u32| n > 0))
        || rest.strip_prefix("map_gpu:").is_some_and(numbers)
        || rest.strip_prefix("mask_gpu:").is_some_and(numbers);
    if known {
        return Ok(word.to_owned());
    }
    Err(BadValue(vec![
        format!(
            "--gpu-bind={text} is not understood; give closest, none, single:N, per_task:N, \
             map_gpu:LIST or mask_gpu:LIST"
        ),
        "Invalid --gpu-bind specification".to_owned(),
    ]))
}

fn is_number(text: &str) -> bool {
    match text.strip_prefix("0x") {
        Some(hex) => !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => text.parse::<u32>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_of_is_read_in_order_of_preference() {
        let (gres, choices) = gres("gpu:h100:4|gpu:a100:8,shard:1").unwrap();
        assert!(gres.is_empty());
        let told: Vec<_> = choices
            .iter()
            .map(|choice| {
                let one = |g: &v1::GresCount| format!("{}:{}:{}", g.name, g.r#type, g.count);
                choice.gres.iter().map(one).collect::<Vec<_>>().join(",")
            })
            .collect();
        assert_eq!(told, ["gpu:h100:4", "gpu:a100:8,shard::1"]);
        assert!(super::gres("gpu:1|").is_err());
        assert!(super::gres("|").is_err());
        assert_eq!(super::gres("gpu:2").unwrap().1, []);
    }

    #[test]
    fn bindings_are_slurms_words() {
        for good in [
            "closest",
            "none",
            "single:1",
            "per_task:2",
            "map_gpu:0,1*2",
            "mask_gpu:0x3",
            "verbose,closest",
        ] {
            assert_eq!(bind(good).unwrap(), good);
        }
        for bad in ["", "near", "single:0", "map_gpu:", "map_gpu:a", "mask_gpu:0x"] {
            assert!(bind(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_type_can_be_given_a_task() {
        assert_eq!(one_type("gpus-per-task", "h100:2").unwrap().unwrap().count, 2);
        assert!(one_type("gpus-per-task", "h100:2,a100:1").is_err());
        assert_eq!(one_type("gpus-per-task", "").unwrap(), None);
    }
}
