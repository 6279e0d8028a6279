import torch
import torch.nn.functional as F

from sthisto.nn import GeneEncoder, ResidualKAN, ResidualMLP, contrastive_loss


def test_heads_and_loss_reproduce_the_original(reference):
    expected = reference("danet_heads.npz")
    image_head, gene_head, encoder = ResidualKAN(1024).eval(), ResidualKAN(785).eval(), GeneEncoder()
    image_head.load_state_dict(expected.part("image_head."))
    gene_head.load_state_dict(expected.part("gene_head."))
    encoder.mamba.load_state_dict(expected.part("gene_encoder."))
    image = image_head(expected["image_features"])
    gene = gene_head(encoder(expected["expression"]))
    loss = contrastive_loss(image, gene)
    loss.backward()
    assert (image - expected["image_embedding"]).abs().max() < 1e-5
    assert (gene - expected["gene_embedding"]).abs().max() < 1e-5
    assert (loss - expected["loss"]).abs() < 1e-5
    for found, name in ((image_head.projection.weight, "grad_image_fc"), (encoder.mamba.A_log, "grad_A_log")):
        assert (found.grad - expected[name]).abs().max() < 1e-4 * expected[name].abs().max()


def test_head_is_equation_two():
    head = ResidualKAN(10, embedding_dim=8, bottleneck=4).eval()
    x = torch.randn(5, 10)
    projected = x @ head.projection.weight.T + head.projection.bias
    down = F.gelu(projected) @ head.fc_in.weight.T + head.fc_in.bias
    up = head.kan.layers[0](down) @ head.fc_out.weight.T + head.fc_out.bias
    total = up + projected
    centered = total - total.mean(1, keepdim=True)
    expected = centered / torch.sqrt(centered.square().mean(1, keepdim=True) + 1e-5)
    torch.testing.assert_close(head(x), expected)


def test_dropout_acts_while_training_only():
    for head in (ResidualKAN(10, dropout=0.5), ResidualMLP(10, dropout=0.5)):
        x = torch.randn(3, 10)
        assert not torch.equal(head(x), head(x))
        assert torch.equal(head.eval()(x), head(x))


def test_mlp_head_has_the_shape_of_the_kan_head():
    assert ResidualMLP(10)(torch.randn(3, 10)).shape == ResidualKAN(10)(torch.randn(3, 10)).shape == (3, 256)
