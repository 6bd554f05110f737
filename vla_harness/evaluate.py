"""The run: from a command's options to a finished run folder, for every benchmark alike.

A command describes its benchmark's suite as plain data and calls ``evaluate``; nothing here knows LIBERO.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from tformer.values import PositiveInt, Seed

from .command import DONE, FAILED, check_options
from .conventions import Adapter
from .engines import Engine, cluster_words, start_crew
from .errors import RunFailed, UserError
from .policy_flags import PolicyOrServerFlags
from .printing import printable
from .progress import Progress
from .protocols import PROTOCOLS, Protocol, chunk_text, default_protocol, protocol_card
from .registry import ACTION, policy_options
from .results import RunFolder, collect_provenance, summarize, write_reports
from .results.configuration import CONFIG, config_differences, extends, read_config
from .results.marks import UNTRAINED, horizon_text, untrained_text
from .results.measured import BATCH_TIMES, PEAK_MEMORY, peak_memory_mb
from .results.wording import plural
from .rollout import EnvironmentRecipe, EpisodeJob, RolloutSettings, VideoChoice, run_episodes
from .rollout.crew import Crew
from .success_table import success_table
from .tracking import OUTLETS, Outlet, require_outlet
from .types import EnvironmentSpec, EpisodeKey, PolicySpec

RUNS = Path("runs")
ERROR_LOG = "errors.log"


def _choice(names: Sequence[str]) -> str:
    return f"{{{','.join(names)}}}"


@dataclass(frozen=True, kw_only=True)
class RunOptions(PolicyOrServerFlags):
    """The options of every evaluation command. A field's docstring is its help text."""

    unnorm_key: Annotated[str | None, arg(metavar="KEY", help_behavior_hint="(default: BENCHMARK_SUITE)")] = None

    tasks: Annotated[str | None, arg(metavar="N,N", help_behavior_hint="(default: all)")] = None
    """Numbers of the tasks to play, with commas between: 0,3."""

    trials: Annotated[PositiveInt | None, arg(metavar="N", help_behavior_hint="(default: the protocol's)")] = None
    """Episodes per task; episode i starts from the task's stored initial state i."""

    round: Annotated[PositiveInt | None, arg(metavar="N", help_behavior_hint="(default: a task's all at once)")] = None
    """Episodes of each task before the next N of any, for comparisons that stop early (compare.py --sequential). A new
    environment for each change of task takes seconds; results do not depend on it."""

    workers: Annotated[
        PositiveInt | None, arg(metavar="N", help_behavior_hint="(default: one per core, at most one per episode)")
    ] = None
    """Processes, each with a simulator of its own. Results do not depend on their number."""

    engine: Engine = "local"
    """Where the run plays: on this machine, or on the Ray cluster that $RAY_ADDRESS or this machine leads to. Results
    do not depend on it."""

    replicas: Annotated[PositiveInt | None, arg(metavar="N", help_behavior_hint="(default: one per GPU, or one)")] = (
        None
    )
    """Copies of the policy on a Ray cluster."""

    track: Outlet = "none"
    """Where episodes, rates and times are also sent as they come: to the folder tensorboard in the results, or to
    Weights & Biases (WANDB_MODE=offline keeps them in the results)."""

    protocol: Annotated[
        str | None,
        arg(metavar=_choice(tuple(PROTOCOLS)), help_behavior_hint="(default: the policy's own, else openvla)"),
    ] = None
    """Published evaluation whose settings are kept: trials, steps, settle phase, seeds, actions per inference."""

    video: VideoChoice = "none"
    """Episodes to film, by playing their actions again when they have ended: 20 frames for each simulated second."""

    out: Annotated[
        Path | None,
        arg(metavar="DIR", help_behavior_hint="(default: runs/BENCHMARK-SUITE-POLICY-DATE-TIME)"),
    ] = None
    """Folder for the results."""

    resume: bool = False
    """Go on with the run in --out, or else with the newest one in runs/ of the same settings. Finished episodes stay,
    errors are played again. With more --trials than the run has, it is extended, and its reports say so. Without such a
    run, start one."""

    seed: Annotated[Seed, arg(metavar="N")] = 7
    """Seed of the policy's random draws. The environment's seed is the protocol's."""


@dataclass(frozen=True)
class SuiteTask:
    """One task of a suite.

    initial_states: how many the benchmark stores. interface: what its environment offers; it may differ within a suite.
    scripted: whether the policy that reads the simulator's state knows the task.
    """

    task_id: int
    name: str
    instruction: str
    initial_states: int
    interface: EnvironmentSpec
    scripted: bool = True


@dataclass(frozen=True)
class Site:
    """Where a suite runs. assets: their provenance. gl_backend: what renders. options: for every environment."""

    assets: Mapping[str, Any]
    gl_backend: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Suite:
    """A benchmark's suite.

    gymnasium_id: of its environments, with the module that registers them; their option ``task`` is the task's number.
    locate: finds assets and rendering, once, when all else has been checked, because it may download for minutes.
    """

    benchmark: str
    name: str
    gymnasium_id: str
    tasks: Sequence[SuiteTask]
    locate: Callable[[], Site]


@dataclass(frozen=True)
class Plan:
    """What a run will play, checked.

    config: the whole configuration, as ``config.json`` holds it.
    """

    suite: Suite
    tasks: Sequence[SuiteTask]
    trials: PositiveInt
    protocol: Protocol
    crew: Crew
    workers: PositiveInt
    config: Mapping[str, Any]

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.tasks) * self.trials

    def jobs(self, site: Site) -> list[EpisodeJob]:
        """Return every episode of the run."""
        jobs = []
        for task in self.tasks:
            recipe = EnvironmentRecipe(
                self.suite.gymnasium_id, {"task": task.task_id, "observations": "on_request", **site.options}
            )
            for number in range(self.trials):
                key = EpisodeKey(self.suite.name, task.task_id, number, self.config["seed"])
                jobs.append(EpisodeJob(key, task.name, task.instruction, recipe))
        return jobs


def evaluate(options: RunOptions, suite: Suite, command: str = "") -> int:
    """Play what is asked for, write the results, print the table, and return the exit code: 0, or 1 after errors.

    command: the command line, for the report; see ``command.command_line``.
    Raises UserError for anything the user can mend, RunFailed when the policy breaks, and KeyboardInterrupt that says
    how to go on; whatever finished until then is kept.
    """
    plan = make_plan(options, suite)
    site = suite.locate()
    path = _run_path(options, plan)
    resuming = options.resume and (path / CONFIG).exists()
    config = {**plan.config, "command": command}
    with RunFolder.open(path, config) if resuming else RunFolder.create(path, config) as folder:
        action = asdict(plan.tasks[0].interface.action)
        environment = {"id": suite.gymnasium_id, "options": dict(site.options), "action": action}  # to play them again
        provenance = collect_provenance(plan.crew, site.assets, site.gl_backend) | {"environment": environment}
        if untrained := untrained_tasks(plan.crew.spec, suite, plan.tasks):
            provenance[UNTRAINED] = untrained
        folder.record_provenance(provenance)
        for name, value in _description(options, plan, folder, resuming):
            announce(name, value)
        if folder.damaged:
            announce("damaged", f"played again: {', '.join(folder.damaged)}")
        for text in (untrained_text(plan.config, provenance), horizon_text(plan.config, provenance)):
            if text:
                announce("note", text)
        _play(options, plan, site, folder)
        folder.record_provenance(
            provenance | {PEAK_MEMORY: peak_memory_mb(), BATCH_TIMES: plan.crew.batch_times.as_data()}
        )
        summary = write_reports(folder)
    print(f"\n{success_table(summary)}\n\nReport: {path / 'report.html'}")
    if summary["errors"]:
        print(f"{path / ERROR_LOG} explains the errors; --resume --out {path} plays them again.", file=sys.stderr)
        return FAILED
    return DONE


def announce(name: str, value: str) -> None:
    """Print one line of what a command has chosen."""
    print(printable(f"{name:<10} {value}"), flush=True)


def make_plan(options: RunOptions, suite: Suite) -> Plan:
    """Check the options against the suite and load the policy. Raises UserError; nothing is written."""
    check_options(options)
    tasks = _chosen_tasks(options.tasks, suite)
    # what can be checked is checked before the policy, which takes minutes to load
    _check_trials(options.trials, tasks)
    if options.protocol is not None:
        _check_protocol(protocol_card(options.protocol), options, suite, tasks)
    require_outlet(options.track)
    crew = _load_policy(options, suite, tasks)
    if options.tasks is None:
        tasks = _known_tasks(crew, suite)
    _check_policy(crew, suite, tasks)
    protocol = protocol_card(options.protocol or default_protocol(crew.spec))
    _check_protocol(protocol, options, suite, tasks)
    trials = protocol.trials if options.trials is None else options.trials
    workers = min(options.workers or crew.cores, len(tasks) * trials)
    config = asdict(options) | {
        "policy": crew.spec.name if options.server else options.policy,
        "benchmark": suite.benchmark,
        "suite": suite.name,
        "tasks": [task.task_id for task in tasks],
        "trials": trials,
        "workers": workers,
        "protocol": asdict(protocol),
        "out": None if options.out is None else str(options.out),
        "policy_option": list(options.policy_option),
    }
    return Plan(suite, tasks, trials, protocol, crew, workers, config)


def _check_protocol(card: Protocol, options: RunOptions, suite: Suite, tasks: Sequence[SuiteTask]) -> None:
    """Raise UserError unless the protocol has the suite, and the tasks have its initial states."""
    if suite.name not in card.max_steps:
        known = ", ".join(card.max_steps)
        raise UserError(f"The protocol {card.name} says nothing of the suite {suite.name!r}, only of {known}.")
    _check_trials(card.trials if options.trials is None else options.trials, tasks)


def _check_trials(trials: int | None, tasks: Sequence[SuiteTask]) -> None:
    stored = min(task.initial_states for task in tasks)
    if trials is not None and trials > stored:
        raise UserError(f"--trials is {trials}, and the tasks have {stored} initial states: give 1 to {stored}.")


def _known_tasks(policy: Crew, suite: Suite) -> list[SuiteTask]:
    """Return the suite's tasks, or those that a policy which reads the simulator's state knows, and name these.

    Raises UserError for a suite of which it knows none.
    """
    known = [task for task in suite.tasks if task.scripted or not policy.spec.reads_scene]
    if not known:
        raise UserError(
            f"The policy {policy.spec.name!r} knows no task of {suite.benchmark}/{suite.name} as it is chosen: give"
            " another --policy, such as random, or --server URL."
        )
    if len(known) < len(suite.tasks):
        numbers = ",".join(str(task.task_id) for task in known)
        announce("tasks", f"{numbers}, those of {len(suite.tasks)} that the policy {policy.spec.name!r} knows")
    return known


def _check_policy(policy: Crew, suite: Suite, tasks: Sequence[SuiteTask]) -> None:
    """Refuse, in one sentence, a policy that one of the tasks cannot be joined with."""
    alike = all(task.interface == tasks[0].interface for task in tasks)
    for task in tasks[:1] if alike else tasks:
        name = f"{suite.benchmark}/{suite.name}"
        Adapter(task.interface, policy.spec, name if alike else f"{name} {task.name}")
    unknown = [task for task in tasks if policy.spec.reads_scene and not task.scripted]
    if unknown:
        known = [str(task.task_id) for task in suite.tasks if task.scripted]
        raise UserError(
            f"The policy {policy.spec.name!r} does not know {', '.join(task.name for task in unknown)}"
            f" of {suite.benchmark}/{suite.name} as it is chosen: "
            + (f"give --tasks {','.join(known)}, or another policy." if known else "choose another policy.")
        )


def untrained_tasks(spec: PolicySpec, suite: Suite, tasks: Sequence[SuiteTask]) -> list[int]:
    """Return the numbers of the tasks that are not among what the policy says it was trained on."""
    learned = {text.strip().lower() for text in spec.trained_on or ()}
    if not learned or f"{suite.benchmark}_{suite.name}".lower() in learned:
        return []
    return [task.task_id for task in tasks if task.instruction.strip().lower() not in learned]


def _load_policy(options: RunOptions, suite: Suite, tasks: Sequence[SuiteTask]) -> Crew:
    policy, arguments = options.chosen_policy()
    known = policy_options(policy)
    if ACTION in known:
        arguments[ACTION] = tasks[0].interface.action
    if "unnorm_key" in known:  # checkpoints of policies with statistics by data set name the suite's data so
        arguments.setdefault("unnorm_key", f"{suite.benchmark}_{suite.name}")
    return start_crew(options.engine, options.replicas, policy, **arguments)


def _chosen_tasks(wanted: str | None, suite: Suite) -> list[SuiteTask]:
    if wanted is None:
        return list(suite.tasks)
    by_id = {task.task_id: task for task in suite.tasks}
    try:
        return [by_id[number] for number in sorted({int(word) for word in wanted.split(",")})]
    except (ValueError, KeyError):
        raise UserError(
            f"--tasks is {wanted!r}: give numbers from {min(by_id)} to {max(by_id)} with commas between, such as 0,3."
        ) from None


def _run_path(options: RunOptions, plan: Plan) -> Path:
    """Return --out, or the newest run in runs/ that has this configuration and is to be resumed, or a new name."""
    if options.out is not None:
        return options.out
    stem = f"{plan.suite.benchmark}-{plan.suite.name}-{plan.config['policy']}-"
    if options.resume:
        shorter = []
        for file in sorted(RUNS.glob(f"{stem}*/{CONFIG}"), reverse=True):
            try:
                stored = read_config(file.parent)
            except UserError:  # damaged, and not the one to go on with
                continue
            if not (differing := config_differences(stored, plan.config)):
                return file.parent
            if extends(stored, plan.config, differing):
                shorter.append(file.parent)
        if shorter:
            return shorter[0]
    return RUNS / f"{stem}{datetime.now():%Y%m%d-%H%M%S}"


def _description(options: RunOptions, plan: Plan, folder: RunFolder, resuming: bool) -> list[tuple[str, str]]:
    card = plan.protocol
    chosen = " (the policy's own)" if plan.crew.spec.protocol else " (the default)"
    chunks = plan.crew.spec.horizon > 1
    sees = "the simulator's state" if plan.crew.spec.reads_scene else ", ".join(plan.crew.spec.cameras) or "nothing"
    source = options.server or options.checkpoint
    resumed = (
        f"resumed, and extended from {plural(folder.extended_from, 'trial')}" if folder.extended_from else "resumed"
    )
    news = resumed if resuming else "new; there was no run to resume" if options.resume else "new"
    return [
        ("policy", f"{plan.config['policy']}{f' from {source}' if source else ''}, which sees {sees}"),
        (
            "protocol",
            f"{card.name}: {plural(len(plan.tasks), 'task')} x"
            f" {plural(plan.trials, 'episode')} of at most {card.max_steps[plan.suite.name]} steps,"
            f" seed {options.seed}{'' if options.protocol else chosen}",
        ),
        *(
            [("actions", f"{chunk_text(plan.crew.spec.horizon, card.actions_per_inference)} of each inference")]
            if chunks
            else []
        ),
        ("workers", f"{plan.workers}{cluster_words(plan.crew)}"),
        ("out", f"{folder.path} ({news})"),
    ]


def _play(options: RunOptions, plan: Plan, site: Site, folder: RunFolder) -> None:
    """Play the episodes that the folder does not hold yet, and add each as it ends."""
    finished = folder.finished()
    left = [job for job in plan.jobs(site) if job.key not in finished]
    settings = RolloutSettings(plan.protocol, plan.workers, folder.path, options.video, round_states=options.round)

    def log(text: str) -> None:
        entry = f"{datetime.now():%Y-%m-%d %H:%M:%S} {text.rstrip()}\n\n"
        try:
            with (folder.path / ERROR_LOG).open("a", encoding="utf-8") as file:
                file.write(entry)
        except OSError as error:  # the results are what counts
            print(f"{ERROR_LOG} cannot be written ({error.strerror or error}): {entry}", file=sys.stderr)

    try:
        with (
            Progress(plan.episodes, folder.results()) as progress,
            OUTLETS[options.track](folder) as tracker,
            closing(run_episodes(left, plan.crew, settings, log)) as results,
        ):
            for result in results:
                folder.add(result)
                progress.update(result)
                tracker.episode(result)
            tracker.end(summarize(folder.recorded()))
    except (KeyboardInterrupt, RunFailed) as error:
        write_reports(folder)
        kept = f"{len(folder.finished())} of {plan.episodes} episodes are kept; go on with --resume --out {folder.path}"
        if isinstance(error, RunFailed):
            raise RunFailed(f"{error} {kept}") from error
        raise KeyboardInterrupt(kept) from None
