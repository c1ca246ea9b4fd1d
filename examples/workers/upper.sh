#!/bin/sh
# A worker in shell: each record, a text, in capital letters.
#     rankpool map --args hello world -- sh examples/workers/upper.sh
# One JSON line in, one JSON line out, in order. What is no result is {"error": "why"}; messages go to standard error.
while IFS= read -r line; do
    case $line in
        \"*\") printf '%s\n' "$line" | sed -E 's/(\\u[0-9A-Fa-f]{4}|\\.)|([a-z])/\1\U\2/g' ;;
        *) printf '%s\n' '{"error": "this is no text"}' ;;
    esac
done
