"""The public names for type checkers and editors; __init__.py has them at run time."""

from mlpkit_backends import Backend as Backend
from mlpkit_backends import BackendUnavailable as BackendUnavailable
from mlpkit_backends import available as available

from .checkpoint import CheckpointError as CheckpointError
from .checkpoint import load_weights as load_weights
from .checkpoint import save_weights as save_weights
from .datasets import DataError as DataError
from .datasets import Dataset as Dataset
from .datasets import Split as Split
from .datasets import SVHN_data as SVHN_data
from .datasets import load_dataset as load_dataset
from .evaluation import Batches as Batches
from .evaluation import compute_acc as compute_acc
from .evaluation import evaluate as evaluate
from .gradcheck import check_gradients as check_gradients
from .gradcheck import eval_numerical_gradient as eval_numerical_gradient
from .gradcheck import eval_numerical_gradient_array as eval_numerical_gradient_array
from .gradcheck import rel_error as rel_error
from .history import Epoch as Epoch
from .history import History as History
from .history import TrainingDiverged as TrainingDiverged
from .layers import ELU as ELU
from .layers import SELU as SELU
from .layers import Activation as Activation
from .layers import Dropout as Dropout
from .layers import Flatten as Flatten
from .layers import FullyConnected as FullyConnected
from .layers import Layer as Layer
from .layers import LeakyReLU as LeakyReLU
from .layers import ReLU as ReLU
from .layers import Sigmoid as Sigmoid
from .layers import Tanh as Tanh
from .losses import CrossEntropy as CrossEntropy
from .losses import softmax as softmax
from .model import Module as Module
from .model import Sequential as Sequential
from .networks import MLP as MLP
from .networks import DropoutNet as DropoutNet
from .networks import FullyConnectedNetwork as FullyConnectedNetwork
from .networks import SmallFullyConnectedNetwork as SmallFullyConnectedNetwork
from .networks import TestFCReLU as TestFCReLU
from .networks import TinyNet as TinyNet
from .optimizers import SGD as SGD
from .optimizers import SGDM as SGDM
from .optimizers import Adam as Adam
from .optimizers import Optimizer as Optimizer
from .optimizers import RMSProp as RMSProp
from .run_files import RunError as RunError
from .scoring import load_run as load_run
from .training import Watcher as Watcher
from .training import fit as fit
from .training import train_net as train_net

__version__: str
