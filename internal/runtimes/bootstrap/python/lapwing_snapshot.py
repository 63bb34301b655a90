"""Starts of which a snapshot may be taken, to make many environments from. What
must differ in each of them is watched until then, and renewed afterwards.

Where the random numbers of Python come from, and what becomes of them:

- os.urandom, and with it secrets, uuid.uuid4 and random.SystemRandom: the
  kernel, which is another one in each environment.
- The functions of random and numpy.random have a state each, which is seeded
  anew, unless the function seeded it: then it wants the same numbers anywhere.
- ssl has OpenSSL's generators, which take fresh entropy from the kernel whenever
  some is added; so has cryptography, of its own.
- The seed of hashes stays. It is no secret of one environment: what it is for,
  against collisions that somebody prepared, it does as well.

Whoever draws before the snapshot holds what all its clones would share.
"""

import os
import sys
from binascii import a2b_base64  # base64 brings regular expressions along

from lapwing_faults import Failure
from lapwing_json import loads
from lapwing_logs import OnImport

STDLIB = os.path.dirname(os.__file__) + os.sep


class Snapshot:
    """The watch over one start, from before the function is loaded on."""

    def __init__(self, hooks):
        self._hooks = hooks  # the function has opted in to SnapStart
        self._watching = True
        self._reason = ""
        self._undo = []
        self._states = {}  # the modules whose state is watched: their names and states as imported
        self._seeded = set()
        self._replace(os, "urandom", self._drawing(os.urandom, "os.urandom"))
        self._replace(os, "getrandom", self._drawing(os.getrandom, "os.getrandom"))
        for name, watch in (("random", self._watch_random), ("numpy.random", self._watch_state), ("ssl", self._watch_ssl)):
            OnImport.install(name, watch)

    def wait(self, client, logs):
        """Waits, in a call of restore/next, until this environment is to go on,
        and adopts what differs in it."""
        try:
            if self._hooks:
                self._run_before_snapshot()
            self._compare()
            told = self._reason
            answer = loads(client.restore_next(told))
            self._compare()
            if self._reason != told and not self._hooks:
                # It became so in the meantime, be it before the snapshot or before now.
                failure = Failure(self._reason, "Runtime.Unfit", "", [])
                client.restore_error(failure.error_type, failure.body())
                sys.exit(1)
            self._adopt(answer)
        except Exception as e:
            failure = Failure.of(e, "")
            logs.error(failure.payload)
            client.init_error("Runtime.BeforeSnapshotError", failure.body())
            sys.exit(64)
        if self._hooks:
            self._run_after_restore(client, logs)

    @staticmethod
    def _run_before_snapshot():
        registry = sys.modules.get("snapshot_restore_py")
        hooks = registry.get_before_snapshot() if registry else []
        while hooks:  # the last one registered comes first
            func, args, kwargs = hooks.pop()
            func(*args, **kwargs)

    @staticmethod
    def _run_after_restore(client, logs):
        registry = sys.modules.get("snapshot_restore_py")
        try:
            for func, args, kwargs in registry.get_after_restore() if registry else ():
                func(*args, **kwargs)
        except BaseException as e:
            failure = Failure.of(e, "")
            logs.error(failure.payload)
            client.restore_error("Runtime.AfterRestoreError", failure.body())
            sys.exit(65)

    def _adopt(self, answer):
        self._watching = False
        for undo in self._undo:
            undo()
        os.environ.update(answer["env"])
        for name in self._states:
            if name not in self._seeded:
                sys.modules[name].seed()  # from the kernel
        entropy = a2b_base64(answer["entropy"])
        if "_ssl" in sys.modules:
            sys.modules["_ssl"].RAND_add(entropy, float(len(entropy)))
        bindings = sys.modules.get("cryptography.hazmat.bindings._rust")
        add = getattr(getattr(getattr(bindings, "_openssl", None), "lib", None), "RAND_add", None)
        if add is not None:
            add(entropy, len(entropy), float(len(entropy)))

    # What follows watches.

    def _replace(self, owner, name, value):
        original = getattr(owner, name)
        setattr(owner, name, value)

        def undo():
            if getattr(owner, name) is value:
                setattr(owner, name, original)

        self._undo.append(undo)

    def _drawing(self, original, label):
        """A function that does what original does, and tells."""

        def draw(*args, **kwargs):
            if self._watching:
                self._drew(label, sys._getframe(1))
            return original(*args, **kwargs)

        draw.__name__ = draw.__qualname__ = original.__name__
        draw.__doc__ = original.__doc__
        return draw

    def _watch_random(self, random):
        self._watch_state(random)
        seed = random.Random.seed

        def watched(generator, a=None, *rest, **kwargs):
            if a is None and self._watching:
                self._drew("random.Random", sys._getframe(1))
            return seed(generator, a, *rest, **kwargs)

        self._replace(random.Random, "seed", watched)

    def _watch_state(self, module):
        name = module.__name__
        self._states[name] = state_of(module)
        original = module.seed

        def seed(*args, **kwargs):
            original(*args, **kwargs)
            if args[:1] not in ((), (None,)) or kwargs:
                self._seeded.add(name)
            else:
                self._seeded.discard(name)

        self._replace(module, "seed", seed)

    def _watch_ssl(self, ssl):
        self._replace(ssl, "RAND_bytes", self._drawing(ssl.RAND_bytes, "ssl.RAND_bytes"))

    def _compare(self):
        for name, state in self._states.items():
            if name not in self._seeded and state_of(sys.modules[name]) != state:
                self._unfit(name)

    def _drew(self, label, frame):
        if self._reason:
            return
        where = ""
        while frame is not None:
            name, code = frame.f_globals.get("__name__", ""), frame.f_code
            if harmless(name, code.co_name):
                return
            path = code.co_filename
            if not path.startswith("<frozen ") and (not path.startswith(STDLIB) or "site-packages" in path):
                root = os.environ.get("LAMBDA_TASK_ROOT", "/var/task") + "/"
                where = f" in {path.removeprefix(root)}:{frame.f_lineno}"
                break
            if code.co_name != "<module>":
                label = f"{name}.{getattr(code, 'co_qualname', code.co_name)}"
            frame = frame.f_back
        self._unfit(label + where)

    def _unfit(self, what):
        self._reason = self._reason or f"its initialisation draws random numbers ({what}), which its clones would share"


def state_of(module):
    """The state of the generator behind a module's functions, in short."""
    if hasattr(module, "getstate"):
        return hash(module.getstate())
    kind, keys, *rest = module.get_state()  # of numpy
    return kind, keys.tobytes(), *rest


def harmless(module, function):
    """Tells whether what a module of this name draws, in a function or as it is
    imported, may be shared: names in the environment's own /tmp, a key for
    processes below this one, and what is seeded anew."""
    if function == "<module>":
        return module == "multiprocessing.process" or module.startswith("numpy.random")
    return module == "tempfile"
