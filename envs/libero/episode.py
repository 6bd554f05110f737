"""A stock LIBERO problem whose episodes start in milliseconds and are the stock environment's, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..stepping.osc import OscStepper


class LiberoEpisodes:
    """Holds one task's simulation; ``reset`` starts an episode, ``step`` advances it.

    The stock environment loads its XML again and builds a GL context at each reset. Here the compiled model is kept,
    and a reset puts back what an episode changes: the data, the poses of fixtures (drawn again at each reset, and no
    part of the stored initial states), visibilities, the gripper's command. Every episode equals the first episode of
    a fresh stock ``OffScreenRenderEnv`` after ``seed(seed)``, ``reset()``, ``set_init_state(state)``.

    stock_envs: the module ``libero.libero.envs``, from ``import_libero``. bddl_file: the task's description.
    edit_xml: changes the model's XML before it is compiled.
    """

    def __init__(self, stock_envs: Any, bddl_file: Path, edit_xml: Callable[[str], str] | None = None) -> None:
        from libero.libero.envs.env_wrapper import ControlEnv

        # Without a renderer: frames come from ``envs.renderer``, when somebody asks.
        wrapper = ControlEnv(
            bddl_file_name=str(bddl_file),
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            ignore_done=True,
        )
        self.problem = wrapper.env
        self._property_initializers = list(self.problem.object_property_initializers)
        self._visible_sites = {
            name: dict(obj.object_properties["vis_site_names"])
            for group in (self.problem.objects_dict, self.problem.fixtures_dict)
            for name, obj in group.items()
        }
        # The constructor has reset once and moved fixtures: compile again to have the model as a reset finds it.
        self.problem.set_xml_processor(edit_xml)
        self.problem._initialize_sim()
        self.model = self.problem.sim.model._model
        self.data = self.problem.sim.data._data
        self._pristine = {name: getattr(self.model, name).copy() for name in ("body_pos", "body_quat", "site_rgba")}
        self._contact_masks: dict[int, NDArray[np.bool_]] = {}
        self.problem.check_contact = self._check_contact
        self.problem._setup_references()
        self.stepper = OscStepper(self.problem)
        self.frame_site_rgba = self.model.site_rgba.copy()
        # The first step of all compiles the stepping loop, once per machine for half a minute: that belongs to building
        # an environment, which may take long, and not to stepping one, which is watched for hanging.
        self.reset(0, self.state)
        self.stepper.step(np.zeros(7))

    def reset(self, seed: int, initial_state: NDArray[np.float64] | None = None) -> None:
        """Start an episode.

        seed: of the fixtures' poses, and of everything else where there is no initial state: objects are then where
        the task's own regions allow, the arm near its usual place. initial_state: (1 + nq + nv,) float64.
        """
        from robosuite.utils.errors import RandomizationError

        # robosuite draws from numpy's global generator; the caller's state of it is left as it was.
        random_state = np.random.get_state()
        try:
            np.random.seed(seed)
            # Each load of the stock problem, one in its constructor and one per reset, lists the samplers of drawers
            # and knobs once more, and every listing draws.
            loads = 2
            while True:
                self.problem.object_property_initializers = self._property_initializers * loads
                try:
                    self._reset_like_stock()
                    break
                except RandomizationError:  # no room found for an object: stock draws again, after another load
                    loads += 1
        finally:
            np.random.set_state(random_state)
        problem = self.problem
        self.stepper.begin_episode()
        self.stepper.sample_now()  # reset() reads observations once, set_init_state once more
        if initial_state is not None:
            problem.sim.set_state_from_flattened(initial_state)
        problem.sim.forward()
        problem._check_success()
        problem._post_process()
        self.stepper.sample_now()
        self.frame_site_rgba[:] = self.model.site_rgba

    def _reset_like_stock(self) -> None:
        problem = self.problem
        for name, values in self._pristine.items():
            getattr(self.model, name)[:] = values
        for name, visible in self._visible_sites.items():
            problem.get_object(name).object_properties["vis_site_names"].update(visible)
        problem.sim.reset()
        # One pass when the simulation is made and one when its render context is: passes move the solver's warm start.
        problem.sim.forward()
        problem.sim.forward()
        problem.robots[0].gripper.current_action = np.zeros(problem.robots[0].gripper.dof)
        problem._reset_internal()
        problem.sim.forward()
        problem.visualize(vis_settings=dict.fromkeys(problem._visualizations, False))

    def step(self, action: NDArray[np.float64]) -> bool:
        """Advance by one action, (7,) float64, and return the task's success check."""
        self.stepper.step(action)
        success = bool(self.problem._check_success())
        # Observations were sampled before the step ended, so their frame shows the sites as they were (a lit burner).
        self.frame_site_rgba[:] = self.model.site_rgba
        self.problem._post_process()
        return success

    @property
    def state(self) -> NDArray[np.float64]:
        """[time, qpos, qvel] float64, a copy."""
        return np.concatenate([[self.data.time], self.data.qpos, self.data.qvel])

    @property
    def frame_qpos(self) -> NDArray[np.float64]:
        """(nq,) float64: the joint positions that a frame of the last observation shows."""
        return self.stepper.buffers.sample_qpos

    def _check_contact(self, model_1: Any, model_2: Any) -> bool:
        """robosuite's ``check_contact`` for two object models, on arrays instead of one contact at a time."""
        pairs = self.data.contact.geom
        in_1, in_2 = self._contact_mask(model_1), self._contact_mask(model_2)
        first, second = pairs[:, 0], pairs[:, 1]
        return bool(np.any((in_1[first] & in_2[second]) | (in_1[second] & in_2[first])))

    def _contact_mask(self, model: Any) -> NDArray[np.bool_]:
        mask = self._contact_masks.get(id(model))
        if mask is None:
            mask = np.zeros(self.model.ngeom, np.bool_)
            mask[[self.model.geom(name).id for name in model.contact_geoms]] = True
            self._contact_masks[id(model)] = mask
        return mask
