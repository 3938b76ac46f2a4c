"""Usage: app.py <name>"""
import docopt

print("hello,", docopt.docopt(__doc__)["<name>"], "from docopt", docopt.__version__)
