"""The similarity prior, on its own; with the network around it in tests/test_xsegtx.py."""

import torch
import torch.nn.functional as F

from model.similarity import Similarity, SimilarityPrior


class Scene:
    """Two views of 6 x 6 parts, the same things mirrored, and an object in the first one; what a prior that has not
    been trained makes of them. Its projection is a rotation.
    """

    def __init__(self):
        torch.manual_seed(0)
        self.prior = SimilarityPrior(8, 64, zoom=2)
        self.query = F.normalize(torch.randn(1, 64, 6, 6), dim=1)
        self.target = self.query.flip(3)
        self.coverage = torch.zeros(1, 6, 6)
        self.coverage[:, 1, :2] = torch.tensor([1, 0.5])
        self.own = [6 + 5, 6 + 4]  # of the target's parts, row by row

    def similarity(self) -> torch.Tensor:
        """With each part of the target, by row and column: (6, 6)."""
        query, target = map(self.prior.parts, (self.query, self.target))
        parts, cosine = self.prior.similarity(query, self.coverage, target)
        self.best = cosine.amax((1, 2))
        return parts[0]


def test_the_similarity_prior_begins_with_the_cosine_of_the_frozen_features():
    scene = Scene()
    parts = torch.cat((scene.query[0].flatten(1), scene.target[0].flatten(1)), 1)
    parts = F.normalize(parts - parts.mean(1, keepdim=True), dim=0)
    cosine = F.normalize(parts[:, 6] + 0.5 * parts[:, 7], dim=0) @ parts
    expected = (cosine - cosine.mean()) / cosine.std(correction=0)
    torch.testing.assert_close(scene.similarity(), expected[36:].view(6, 6), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scene.best, cosine[36:].max()[None])


def test_the_similarity_prior_finds_what_looks_like_the_object_and_nothing_where_it_is_hidden():
    scene = Scene()
    found = scene.similarity()
    assert found.flatten().topk(2).indices.tolist() == scene.own
    scene.target[:, :, 1, 4:] = scene.target[:, :, 3, 2:4]  # something else in its place
    assert scene.similarity().max() < found.max() / 2

    scene = Scene()
    common = 3 * scene.query[:, :, :1, :1]
    scene.query, scene.target = (F.normalize(x + common, dim=1) for x in (scene.query, scene.target))
    assert scene.similarity().flatten().topk(2).indices.tolist() == scene.own


def test_an_object_too_small_for_the_grid_has_no_similarity_and_harmless_gradients():
    scene = Scene()
    scene.coverage.zero_()
    similarity = scene.similarity()
    assert similarity.abs().max() == 0 and scene.best == 0
    (similarity.square().sum() + scene.best.sum()).backward()
    assert scene.prior.metric.weight.grad.isfinite().all()


def test_the_similarity_prior_learns_by_which_differences_to_tell_objects_apart():
    scene = Scene()
    own = torch.tensor(scene.own)
    optimizer = torch.optim.Adam(scene.prior.parameters(), lr=0.01)
    scene.target[:] = F.normalize(scene.target + 3 * torch.randn(1, 64, 6, 6), dim=1)  # hard to recognize
    contrast = []
    for _ in range(20):
        similarity = scene.similarity().flatten()
        contrast.append(similarity[own].mean() - similarity.mean())
        optimizer.zero_grad()
        (-contrast[-1]).backward()
        optimizer.step()
    assert contrast[-1] > contrast[0] + 1
    assert SimilarityPrior(8, 1024, zoom=1).metric.weight.shape == (128, 1024)


def test_a_token_of_the_whole_view_reads_its_own_parts_and_one_of_a_closer_look_its_only_part():
    torch.manual_seed(0)
    prior, parts = SimilarityPrior(8, 64, zoom=2), torch.randn(2, 6, 6)
    marks = prior.mark_target(torch.zeros(2, 9, 8), Similarity(parts, None), torch.tensor([[-1, -1], [1, 3]]))
    own = parts[0, 2:4, :2].flatten()  # of the first cell in the second row
    torch.testing.assert_close(marks[0, 3], own @ prior.target)
    torch.testing.assert_close(marks[1, 3], parts[1, 2, 3] * prior.target.sum(0))


def test_existence_follows_the_most_similar_part_of_what_the_target_shows():
    prior, cosine = SimilarityPrior(8, 64, zoom=2), torch.zeros(2, 6, 6)
    cosine[:, 0, 5], cosine[:, 4, 1] = 0.9, 0.6
    logits = prior.existence(Similarity(cosine, cosine), torch.tensor([[-1, -1], [2, 0]]))
    torch.testing.assert_close(logits, prior.slope * (torch.tensor([0.9, 0.6]) - prior.threshold))
