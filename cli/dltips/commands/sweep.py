"""dltips sweep: searches for the settings with the best score, in Hydra's own sweep syntax."""

from __future__ import annotations

from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_OK
from dltips.signals import STOPPING, handling, interrupt

HELP = """\
dltips sweep: search for the settings that give the best score

  dltips sweep +recipe=quickstart 'optimizer.lr=tag(log,interval(1e-4,1))' init=he,xavier trials=50
  dltips sweep +recipe=fashion_cnn 'optimizer.momentum=interval(0.5,0.99)' batch_size=64,128,256 pruner=asha timeout=2h
  dltips sweep +recipe=quickstart 'epochs=int(interval(5,60))' 'objective=[val/accuracy,seconds]'
  dltips sweep resume=last trials=100

what is searched over, each end and each choice looked at before the first trial:
  KEY=a,b,c  KEY=choice(a,b,c)        one of them; FAMILY=OPTION,OPTION as well
  KEY=interval(LOW,HIGH)              any number from LOW to HIGH
  KEY=tag(log,interval(LOW,HIGH))     the same by orders of magnitude: for rates and decays
  KEY=int(interval(LOW,HIGH))         whole numbers
  KEY=range(FIRST,END,STEP)           steps; END is left out

the search itself:
  trials=20          how many; never more, however many workers join
  timeout=none       2h, 30m or seconds: no trial begins after it, and the running ones stop after their epoch
  sampler=tpe        random, tpe, qmc, cmaes
  pruner=none        none, median, asha, hyperband: ends trials that are behind others at the same epoch
  objective=METRIC   default: the run's metric. A score of each epoch (val/accuracy, ...) or a figure of the run
                     (parameters, seconds, ...): dltips ls metrics lists them; a list gives the Pareto front
  seeds=1            runs per trial, whose mean counts; a trial that is clearly worse than the best stops early.
                     Only the first seed reports to the pruner
  workers=1          processes of this machine; --workers 4 is the same
  storage=ADDRESS    postgresql://USER@HOST/DATABASE: the same command on any machine joins in; default: a file
  name=NAME          of the study, and in its folder's name
  resume=FOLDER      go on with a search; `last` is the newest. The same command again does so, too
  reduction=3        of asha and hyperband: one of so many goes on to the next rung
  min_epochs=none    before a pruner looks at a trial; default: a 27th of the epochs
  patience=120       seconds to wait for a database that has gone away
  grace=60           seconds without a sign of life after which a worker of another machine is taken for dead
"""


def run(arguments: list[str]) -> int:
    if any(argument in ("-h", "--help") for argument in arguments):
        print(HELP, end="")
        return EXIT_OK
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise ConfigError("sweep: needs Optuna; pip install 'optuna>=5,<6'")

    # from here on SIGTERM and SIGUSR1 act as ctrl-C; during a trial the run itself handles them
    with handling(interrupt, STOPPING[1:]):
        from dltips.sweep.search import run_search

        return run_search.run(arguments)
