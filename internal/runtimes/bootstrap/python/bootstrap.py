"""What the python runtimes start. All else is in modules, which are compiled
beforehand; a main program never is."""

from lapwing_main import main

main()
