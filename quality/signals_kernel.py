import numpy as np
from quality.signals_reference import counters
def count(texts):
    return np.array([list(counters(t.as_py()).values()) for t in texts], np.int64).reshape(len(texts), -1)
