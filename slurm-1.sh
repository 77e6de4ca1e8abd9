#!/bin/sh
# batch script of the golden state
"$@"
