//! Values of every shape, made from a seed; for tests.

use std::sync::Arc;

use fixedbitset::FixedBitSet;
use penstock_core::command::Unit;
use penstock_core::command::{Reply, Target, TargetResult};
use penstock_core::model::Run;
use penstock_core::model::*;
use penstock_core::refusal::Refusal;
use penstock_vocab::*;

/// A stream of numbers that a seed decides (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    fn byte(&mut self, bound: u64) -> u8 {
        u8::try_from(self.below(bound)).unwrap()
    }

    pub(super) fn number(&mut self) -> u32 {
        let wide = self.below(4) == 0;
        u32::try_from(if wide { self.roll() >> 32 } else { self.below(100) }).unwrap()
    }

    pub(super) fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    pub(super) fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.chance() { Some(make(self)) } else { None }
    }

    pub(super) fn some<T, C: FromIterator<T>>(
        &mut self,
        mut make: impl FnMut(&mut Self) -> T,
    ) -> C {
        (0..self.below(4)).map(|_| make(self)).collect()
    }

    pub(super) fn text(&mut self) -> Box<str> {
        self.pick(&["", "a", "name", "ä ö", "/data/x y", "line\nline"]).into()
    }

    /// Never the epoch, which stands for no time.
    pub(super) fn time(&mut self) -> Timestamp {
        Timestamp(1 + i64::try_from(self.below(1 << 42)).unwrap())
    }

    fn hash(&mut self) -> [u8; 32] {
        std::array::from_fn(|_| self.byte(256))
    }

    pub(super) fn node(&mut self) -> NodeName {
        NodeName::new(&format!("n{}", 1 + self.below(4))).unwrap()
    }

    pub(super) fn partition(&mut self) -> PartitionName {
        PartitionName::new(self.pick(&["main", "gpu"])).unwrap()
    }

    pub(super) fn gres_name(&mut self) -> GresName {
        let (name, kind) = self.pick(&[("gpu", Some("h100")), ("gpu", None), ("shard", None)]);
        GresName::new(name, kind).unwrap()
    }

    fn gres(&mut self) -> GresRequest {
        GresRequest { name: self.gres_name(), count: self.below(9) }
    }

    fn limit(&mut self) -> Walltime {
        match self.below(3) {
            0 => Walltime::Unlimited,
            _ => Walltime::Limited(1 + self.below(1 << 30)),
        }
    }

    pub(crate) fn indices(&mut self) -> IndexSet {
        let mut set = IndexSet::new();
        for _ in 0..self.below(5) {
            let start = u32::try_from(self.below(1000)).unwrap();
            let length = u32::try_from(self.below(50)).unwrap();
            let step = 1 + u32::try_from(self.below(4)).unwrap();
            set = set.union(&IndexSet::from_range(start, start + length, step));
        }
        set
    }

    fn hold(&mut self) -> Hold {
        self.pick(&[Hold::None, Hold::User, Hold::Admin])
    }

    fn memory(&mut self) -> MemoryRequest {
        match self.below(5) {
            0 => MemoryRequest::Default,
            4 => MemoryRequest::PerGpu(Mib(self.below(1 << 40))),
            1 => MemoryRequest::WholeNode,
            2 => MemoryRequest::PerNode(Mib(1 + self.below(1 << 40))),
            _ => MemoryRequest::PerCpu(Mib(self.below(1 << 40))),
        }
    }

    fn shape(&mut self) -> Shape {
        let constraint = self.pick(&["", "h100", "h100&(ib|eth)"]);
        Shape {
            nodes_min: self.number(),
            nodes_max: self.number(),
            ntasks: self.maybe(Self::number),
            cpus_per_task: self.maybe(Self::number),
            ntasks_per_node: self.maybe(Self::number),
            memory: self.memory(),
            gres_per_node: self.some(Self::gres),
            gpus_total: self.maybe(Self::gres),
            gpus: GpuTerms {
                per_task: self.maybe(Self::gres),
                per_socket: self.maybe(Self::gres),
                sockets_per_node: self.number(),
                cpus_per_gpu: self.maybe(Self::number),
                choices: self.some(|dice| dice.some(Self::gres)),
            },
            constraint: Constraint::parse(constraint).unwrap(),
            required: self.some(Self::node),
            excluded: self.some(Self::node),
            exclusive: self.chance(),
            exclusive_user: self.chance(),
            oversubscribe: self.chance(),
            licenses: self.some(|dice| (dice.text(), dice.roll())),
            switches: self
                .maybe(|dice| SwitchRequest { count: dice.number(), max_wait_secs: dice.number() }),
        }
    }

    fn details(&mut self) -> Details {
        Details {
            work_dir: self.text(),
            stdin: self.text(),
            stdout: self.text(),
            stderr: self.text(),
            append: self.chance(),
            umask: self.number(),
            rlimits: self.some(|dice| (dice.number(), dice.roll())),
            command: self.text(),
            arguments: self.some(Self::text),
            submit_host: self.text(),
            submit_line: self.text(),
            export: self.text(),
            user_name: self.text(),
            group_name: self.text(),
            script: BlobId(if self.chance() { self.hash() } else { [0; 32] }),
            environment: BlobId(self.hash()),
            submit_sid: self.number(),
            measure_secs: self.maybe(|dice| dice.number() % 86_400),
            unheld: self.chance(),
            gpu_bind: self.text(),
            idle_ok: self.text(),
            mail_type: self.text(),
            mail_user: self.text(),
            wckey: self.text(),
            distribution: self.text(),
            overcommit: self.maybe(Self::number),
            container: self.text(),
            container_image: self.text(),
        }
    }

    pub(crate) fn spec(&mut self) -> JobSpec {
        let dependency = self.pick(&["", "afterok:12:13", "after:5+10?afterany:7_3"]);
        JobSpec {
            name: self.text(),
            account: self.text(),
            qos: self.text(),
            partitions: self.some(Self::partition),
            shape: std::sync::Arc::new(self.shape()),
            time_limit: self.maybe(Self::limit),
            begin_time: Timestamp(i64::from(self.number())),
            hold: self.chance(),
            requeue: self.maybe(Self::chance),
            nice: self.number().cast_signed(),
            priority: self.maybe(Self::number),
            comment: self.text(),
            dependency: Dependency::parse(dependency).unwrap(),
            kill_on_invalid_dep: self.chance(),
            allocation: self.chance(),
            no_kill: self.chance(),
            signal: self.maybe(|dice| SignalRequest {
                signal: dice.number(),
                seconds_before: dice.number(),
                batch_only: dice.chance(),
            }),
            reservation: self.text(),
            deadline: self.maybe(Self::time),
            min_time: self.maybe(Self::limit),
            details: std::sync::Arc::new(self.details()),
        }
    }

    fn summary(&mut self) -> ArraySummary {
        ArraySummary {
            count: self.number(),
            min: self.number(),
            max: self.number(),
            step: self.number(),
            throttle: self.number(),
        }
    }

    fn share(&mut self) -> NodeShare {
        let size = self.below(200);
        let mut cpus = FixedBitSet::with_capacity(usize::try_from(size).unwrap());
        (0..cpus.len()).for_each(|cpu| cpus.set(cpu, self.below(3) > 0));
        NodeShare {
            node: NodeIndex(u32::try_from(self.below(4)).unwrap()),
            cpus,
            sharing: self.number().max(1),
            memory: Mib(self.roll()),
            tasks: self.number(),
            gres: self
                .some(|dice| GresShare { name: dice.gres_name(), ids: dice.some(Self::number) }),
        }
    }

    fn usage(&mut self) -> Usage {
        Usage {
            user_cpu_usec: self.roll(),
            system_cpu_usec: self.roll(),
            peak_memory_bytes: self.roll(),
            memory_limit_bytes: self.roll(),
            tasks: self.maybe(|dice| {
                let mut tasks = TaskUsage::of(dice.number());
                for measure in Measure::ALL {
                    let max = dice.roll() >> 1;
                    let min = max - max / 3;
                    let (max_task, min_task) = (dice.number(), dice.number());
                    let spread = Spread { total: max + min, max, max_task, min, min_task };
                    tasks.set(measure, Some(spread));
                }
                Box::new(tasks)
            }),
        }
    }

    fn run(&mut self) -> Run {
        let causes = [
            EndCause::Exited,
            EndCause::Cancelled,
            EndCause::TimeLimit,
            EndCause::NodeFail,
            EndCause::Requeue,
            EndCause::RequeueHold,
            EndCause::LaunchFailed,
            EndCause::OutOfMemory,
            EndCause::Preempted,
            EndCause::PreemptedRequeue,
            EndCause::Deadline,
        ];
        let stage = match self.below(4) {
            0 => RunStage::Allocated,
            1 => RunStage::Launched,
            2 => RunStage::Ending(self.pick(&causes)),
            _ => RunStage::Ended,
        };
        let ended = stage == RunStage::Ended;
        Run {
            attempt: Attempt(self.number()),
            shares: self.some(Self::share),
            partition: self.partition(),
            start_time: self.time(),
            launched: self.maybe(Self::time),
            end_time: self.maybe(Self::time),
            stage,
            ended_by: self.maybe(|dice| UserId(dice.number())),
            end_state: ended.then(|| self.state()),
            exit: ExitCode { status: self.byte(256), signal: self.byte(128) },
            usage: self.usage(),
            end_reason: self.text(),
            billing: self.roll(),
            usage_factor: self.roll(),
            suspended_since: self.maybe(Self::time),
            suspended_ms: self.roll(),
            checkpoint: self.maybe(Self::time),
            yields_to: self.maybe(|dice| {
                let id = JobId(1 + dice.number() / 2);
                if dice.chance() { Unit::Array(id) } else { Unit::Job(id) }
            }),
            ends_at: self.maybe(|dice| (dice.time(), dice.pick(&causes))),
            lease: self.maybe(|dice| RunLease {
                secs: 1 + dice.number() / 2,
                kill_wait_secs: dice.number(),
            }),
            batch: match self.below(4) {
                0 => BatchPart::None,
                1 => BatchPart::Script,
                2 => BatchPart::Ended(Box::new(self.result())),
                _ => BatchPart::NeverStarted,
            },
            steps_warned: self.chance(),
            derived_exit: ExitCode { status: self.byte(256), signal: self.byte(128) },
            gpus: self.some::<_, Vec<_>>(Self::gpu_usage).into(),
            gpu_kill: self.maybe(|dice| GpuKill { text: "GPU 3".into(), requeue: dice.chance() }),
            hooks: self.maybe(|dice| Box::new(dice.hooks())),
            idle: self.maybe(Self::idle_note),
        }
    }

    fn hooks(&mut self) -> RunHooks {
        RunHooks {
            policy: HookPolicy {
                controller_prolog: self.chance(),
                prolog: self.chance(),
                epilog: self.chance(),
                no_hold: self.chance(),
            },
            stage: self.pick(&[
                HookStage::Controller,
                HookStage::Prolog,
                HookStage::Job,
                HookStage::Epilog,
            ]),
            nodes: self.some(|dice| {
                dice.pick(&[HookPhase::Allocated, HookPhase::Running, HookPhase::Ended])
            }),
            failed: self.chance(),
            job_ended: self.maybe(Self::time),
        }
    }

    fn idle_note(&mut self) -> IdleNote {
        use IdleAction::{Cancel, Notify, Preemptible, Requeue};
        IdleNote {
            rule: self.text(),
            warned: self.number(),
            since: self.time(),
            act_at: self.time(),
            action: self.pick(&[Notify, Requeue, Cancel, Preemptible]),
            dry_run: self.chance(),
            evidence: self.text(),
            lost_ms: self.roll(),
            acted: self.maybe(Self::time),
            freed_ms: self.roll(),
        }
    }

    fn result(&mut self) -> RunResult {
        RunResult {
            exit: ExitCode { status: self.byte(256), signal: self.byte(128) },
            out_of_memory: self.chance(),
            time_limit: self.chance(),
            unkillable: self.chance(),
            launch_error: self.text(),
            node_fault: self.chance(),
            lost: self.chance(),
            fenced: self.chance(),
            usage: self.usage(),
            elapsed_ms: self.roll(),
            gpus: Arc::default(),
            devices_changed: self.chance(),
        }
    }

    pub(crate) fn step(&mut self) -> Step {
        let share = |dice: &mut Self| StepShare {
            share: dice.share(),
            ranks: dice.some(Self::number),
            phase: match dice.below(3) {
                0 => StepPhase::Allocated,
                1 => StepPhase::Running,
                _ => StepPhase::Ended(Box::new(dice.result())),
            },
        };
        Step {
            key: StepKey {
                job: JobId(self.number()),
                attempt: Attempt(self.number()),
                number: StepNumber(self.number()),
            },
            uid: UserId(self.number()),
            spec: Arc::new(self.step_spec()),
            shares: self.some(share),
            start_time: self.time(),
            run_elapsed: Millis(self.roll()),
            end_time: self.maybe(Self::time),
            state: self.state(),
            exit: ExitCode { status: self.byte(256), signal: self.byte(128) },
            usage: self.usage(),
            ending: self.maybe(|dice| dice.pick(&[EndCause::Cancelled, EndCause::NodeFail])),
            ended_by: self.maybe(|dice| UserId(dice.number())),
            ticket: 0,
        }
    }

    fn step_spec(&mut self) -> StepSpec {
        let ways = [
            ("", Distribution::Default),
            ("block:cyclic", Distribution::Block),
            ("cyclic,Pack", Distribution::Cyclic),
            ("plane=4", Distribution::Plane(4)),
            ("arbitrary", Distribution::Arbitrary),
        ];
        let (words, distribution) = self.pick(&ways);
        StepSpec {
            name: self.text(),
            ntasks: self.maybe(Self::number),
            nodes_min: self.maybe(Self::number),
            nodes_max: self.maybe(Self::number),
            cpus_per_task: self.maybe(Self::number),
            ntasks_per_node: self.maybe(Self::number),
            // Steps ask for none by the GPU.
            memory: match self.memory() {
                MemoryRequest::PerGpu(_) => MemoryRequest::Default,
                other => other,
            },
            gres_per_node: self.some(Self::gres),
            gpus_total: self.maybe(Self::gres),
            gpus_per_task: self.maybe(Self::gres),
            exact: self.chance(),
            overlap: self.chance(),
            overcommit: self.chance(),
            relative: self.maybe(Self::number),
            required: self.some(Self::node),
            excluded: self.some(Self::node),
            distribution,
            task_nodes: self.some(Self::node),
            time_limit: self.maybe(|dice| Walltime::Limited(1 + u64::from(dice.number()))),
            no_kill: self.chance(),
            interactive: self.chance(),
            details: Arc::new(StepDetails {
                distribution: words.into(),
                cpu_bind: self.text(),
                gpu_bind: self.text(),
                mpi: self.text(),
                srun_host: self.text(),
                srun_pid: self.number(),
                submit_line: self.text(),
                container: self.text(),
                container_image: self.text(),
                container_dir: self.text(),
                comment: self.text(),
                threads_per_core: self.number(),
                ntasks_per_core: self.number(),
                ntasks_per_socket: self.number(),
                pty: self.chance(),
                measure_secs: self.maybe(|dice| dice.number() % 86_400),
            }),
        }
    }

    fn gpu_usage(&mut self) -> GpuUsage {
        GpuUsage {
            node: self.node(),
            gpu: self.number(),
            start: self.maybe(Self::number),
            kind: self.text(),
            memory: Mib(self.roll()),
            mean: self.maybe(Self::number),
            p50: self.maybe(Self::number),
            p95: self.maybe(Self::number),
            peak_memory: self.maybe(|dice| Mib(dice.roll())),
            energy_mj: self.maybe(Self::roll),
            idle_ms: self.maybe(Self::roll),
            empty_ms: self.maybe(Self::roll),
            seen_ms: self.roll(),
            idle_now_ms: self.roll(),
            last: self.time(),
        }
    }

    fn state(&mut self) -> JobState {
        self.pick(JobState::ALL)
    }

    pub(crate) fn job(&mut self) -> Job {
        let reasons = PendingReason::ALL;
        Job {
            id: JobId(self.number()),
            uid: UserId(self.number()),
            gid: GroupId(self.number()),
            assoc: AssocId(1 + self.number() / 2),
            spec: Arc::new(self.spec()),
            state: self.state(),
            submit_time: self.time(),
            eligible_time: self.maybe(Self::time),
            hold: self.hold(),
            restarts: self.number(),
            run: self.maybe(|dice| Arc::new(dice.run())),
            earlier_runs: self.some(|dice| Arc::new(dice.run())),
            array: self.maybe(|dice| ArrayTask {
                base: JobId(dice.number()),
                index: ArrayTaskId(dice.number()),
                summary: dice.summary(),
            }),
            fixed_priority: self.maybe(Self::number),
            end_time: self.maybe(Self::time),
            cancelled_by: self.maybe(|dice| UserId(dice.number())),
            not_before: Timestamp(i64::from(self.number())),
            last_attempt: Attempt(self.number()),
            // The reason None is stored as none at all.
            reason: self.maybe(|dice| dice.pick(&reasons[1..])),
            time_limit: self.limit(),
            limit_serial: self.number(),
            cron: self.maybe(|dice| Arc::new(dice.cron())),
        }
    }

    pub(crate) fn array(&mut self) -> Array {
        Array {
            id: JobId(self.number()),
            uid: UserId(self.number()),
            gid: GroupId(self.number()),
            assoc: AssocId(1 + self.number() / 2),
            spec: Arc::new(self.spec()),
            submit_time: self.time(),
            pending: self.indices(),
            summary: self.summary(),
            hold: self.hold(),
            fixed_priority: self.maybe(Self::number),
            not_before: Timestamp(i64::from(self.number())),
            time_limit: self.limit(),
            completed: self.number(),
            failed: self.indices(),
            cancelled: self.indices(),
            cancelled_at: self.maybe(|dice| (dice.time(), UserId(dice.number()))),
            reason: self
                .maybe(|dice| dice.pick(&[PendingReason::DeadLine, PendingReason::JobHeldAdmin])),
            held: self.indices(),
            held_by_admin: self.indices(),
            unlisted: self.number(),
            last_end: self.maybe(Self::time),
        }
    }

    fn inventory(&mut self) -> Inventory {
        Inventory {
            cpus: self.number(),
            sockets: self.number(),
            cores_per_socket: self.number(),
            threads_per_core: self.number(),
            memory: Mib(self.roll()),
            tmp_disk: Mib(self.roll()),
            gres: self.some(Self::gres),
            features: self.some(Self::text),
            os: self.text(),
            architecture: self.text(),
            version: self.text(),
            boot_id: self.text(),
            boot_time: self.time(),
            agent_start: self.time(),
            unpinned: self.chance(),
            address: self.text(),
            hostname: self.text(),
            gpus: self.some::<_, Vec<_>>(Self::gpu).into(),
            gpu_error: self.text(),
        }
    }

    fn gpu(&mut self) -> Gpu {
        Gpu {
            index: self.number(),
            minor: self.number(),
            uuid: self.text(),
            kind: self.text(),
            model: self.text(),
            memory: Mib(self.roll()),
            pci: self.text(),
            numa: self.maybe(Self::number),
            cpus: self.some(|dice| (dice.number(), dice.number())),
            links: self.some(|dice| GpuLink {
                peer: dice.number(),
                nvlinks: dice.number(),
                ancestor: dice.number(),
            }),
            mig: self.pick(&[MigMode::None, MigMode::Off, MigMode::On]),
            slices: self.some(|dice| MigSlice {
                uuid: dice.text(),
                profile: dice.text(),
                gi: dice.number(),
                ci: dice.number(),
                start: dice.number(),
                size: dice.number(),
                memory: Mib(dice.roll()),
                device_files: dice.some(Self::text),
            }),
            profiles: self.some(|dice| MigProfile {
                name: dice.text(),
                id: dice.number(),
                size: dice.number(),
                starts: dice.some(Self::number),
                memory: Mib(dice.roll()),
                compute: dice.number(),
                most: dice.number(),
            }),
            generation: self.roll(),
            fault: self.text(),
            device_files: self.some(Self::text),
            fake: self.chance(),
            vendor: self.text(),
        }
    }

    fn gpu_drain(&mut self) -> GpuDrain {
        GpuDrain {
            index: self.number(),
            uuid: self.text(),
            reason: self.text(),
            by: self.maybe(|dice| UserId(dice.number())),
            since: self.time(),
            xid: self.number(),
            end: self.pick(&[GpuDrainEnd::ByHand, GpuDrainEnd::Reported, GpuDrainEnd::Boot]),
            deadline: self.maybe(Self::time),
        }
    }

    pub(crate) fn stored_node(&mut self) -> Node {
        Node {
            name: self.node(),
            inventory: self.inventory(),
            admin: NodeAdmin {
                drain: self.chance(),
                fail: self.chance(),
                powered_down: self.chance(),
                reason: self.text(),
                reason_by: self.maybe(|dice| (UserId(dice.number()), dice.time())),
                weight: self.maybe(Self::number),
                features: self.maybe(|dice| dice.some(Self::text)),
                comment: self.text(),
                drain_by: self.maybe(Self::time),
                gpus: self.some(Self::gpu_drain),
                reshapes: self.some(|dice| Reshape {
                    gpu: dice.number(),
                    uuid: dice.text(),
                    generation: dice.roll(),
                    destroy: dice.some(Self::number),
                    create: dice.some(|dice| NewSlice {
                        profile: dice.text(),
                        id: dice.number(),
                        start: dice.number(),
                        size: dice.number(),
                    }),
                    deadline: dice.time(),
                }),
            },
            down: self.maybe(|dice| Down {
                reason: dice.text(),
                at: dice.time(),
                by: dice.maybe(|dice| UserId(dice.number())),
                by_silence: dice.chance(),
            }),
            registered: self.maybe(Self::time),
            last_busy: self.maybe(Self::time),
            trouble: LaunchTrouble::default(),
            session: None,
            weight: 1,
            configured_features: Box::default(),
        }
    }

    fn role(&mut self) -> HostRole {
        self.pick(&[HostRole::Compute, HostRole::Login, HostRole::Admin])
    }

    pub(crate) fn host(&mut self) -> Host {
        Host {
            name: self.text(),
            role: self.role(),
            key_hash: self.hash(),
            joined: self.time(),
            revoked: self.chance(),
            token_id: self.text(),
        }
    }

    pub(crate) fn token(&mut self) -> JoinToken {
        JoinToken {
            id: self.text(),
            secret_hash: self.hash(),
            role: self.role(),
            expires: self.time(),
            uses_left: self.number(),
            created: self.time(),
            created_by: UserId(self.number()),
        }
    }

    /// A refusal as it comes back from a record.
    fn refusal(&mut self) -> Refusal {
        Refusal::Remembered { kind: self.text(), slurm_text: self.text(), detail: self.text() }
    }

    fn target(&mut self) -> Target {
        let id = JobId(self.number());
        match self.below(3) {
            0 => Target::Id(id),
            1 => Target::Job(id),
            _ => Target::Tasks(id, self.indices()),
        }
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let reply = match self.below(4) {
            0 => Reply::Done,
            1 => {
                let job = JobId(self.number());
                Reply::Submitted { job, warnings: self.some(Self::text) }
            }
            2 => Reply::SubmittedMany(self.some(|dice| match dice.chance() {
                true => Ok(JobId(dice.number())),
                false => Err(Box::new(dice.refusal())),
            })),
            _ => Reply::Targets(self.some(|dice| TargetResult {
                target: dice.target(),
                refusal: dice.maybe(Self::refusal),
            })),
        };
        Answer { at: self.time(), reply }
    }
}
