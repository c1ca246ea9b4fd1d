"""A worker in Python without any help: the square of each record.  rankpool map --range 1:10 -- python3 examples/workers/square.py"""
import json
import sys

for line in sys.stdin:
    try:
        answer = json.loads(line) ** 2
    except TypeError as error:
        answer = {"error": {"kind": "type", "message": str(error)}}
    # Each answer at once: without `flush` it would wait in Python until there are many.
    print(json.dumps(answer), flush=True)
