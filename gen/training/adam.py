"""Adam without what torch.compile would need of it: a second of imports less at every start."""

from __future__ import annotations

from inspect import unwrap

import torch


class Adam(torch.optim.Adam):
    """torch's fused Adam, to the last bit; it cannot be compiled, as networks can.

    torch wraps these methods in guards that import torch._dynamo when they are first called: a
    tenth of the time until the first step of `train.py dcgan --data shapes`.
    """

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
